//! What a server says of a model's inputs.

use http::Uri;
use serde::Deserialize;
use sluice_protocol::{Datatype, TensorSpec, grpc};

use super::Protocol;
use super::bodies::{framed, grpc_headers, unframed};
use super::once::once;
use crate::check::{Check, Fault};
use crate::error::BenchError;
use crate::options::Question;

/// What `GET /v2/models/NAME` answers, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Metadata {
    inputs: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// A model's inputs, as its server tells them over HTTP or gRPC. `at` makes URLs of paths.
pub(super) fn inputs(
    at: impl Fn(String) -> Result<Uri, BenchError>,
    model: &str,
    protocol: Protocol,
    allow_remote: bool,
) -> Result<Vec<TensorSpec>, BenchError> {
    let path = match protocol {
        Protocol::Grpc => "/inference.GRPCInferenceService/ModelMetadata".to_owned(),
        Protocol::V1 | Protocol::V2 | Protocol::V2Binary => format!("/v2/models/{model}"),
    };
    let url = at(path)?;
    let failed = |reason: String| BenchError::Model { model: model.to_owned(), reason };
    let answer = asking(&url, model, protocol);
    let answer = once(answer, protocol.transport(), allow_remote)?
        .map_err(|fault| failed(format!("{url}: {}", fault.detail)))?;
    let check = if protocol == Protocol::Grpc { Check::Grpc } else { Check::Status };
    let refused = |fault: Fault| failed(format!("{url}: {}: {}", fault.failure, fault.detail));
    check.judge(&answer).map_err(refused)?;
    let listed = match protocol {
        Protocol::Grpc => listed_by_message(&answer.body),
        Protocol::V1 | Protocol::V2 | Protocol::V2Binary => listed_by_json(&answer.body),
    };
    let listed = listed.map_err(|why| failed(format!("{url} answered no metadata: {why}")))?;
    let spec = |Listed { name, datatype, shape }| match Datatype::parse(&datatype) {
        Some(datatype) => Ok(TensorSpec { name, datatype, shape }),
        None => Err(failed(format!("input {name:?} is {datatype}, which is not known here"))),
    };
    listed.into_iter().map(spec).collect()
}

fn asking(url: &Uri, model: &str, protocol: Protocol) -> Question {
    let question = Question::new(url.clone());
    if protocol != Protocol::Grpc {
        return question;
    }
    let named = grpc::ModelMetadataRequest { name: model.to_owned(), ..Default::default() };
    Question { headers: grpc_headers(), bodies: vec![framed(&named)], ..question }
}

fn listed_by_json(body: &[u8]) -> Result<Vec<Listed>, String> {
    let metadata = serde_json::from_slice::<Metadata>(body);
    metadata.map(|metadata| metadata.inputs).map_err(|error| error.to_string())
}

fn listed_by_message(body: &[u8]) -> Result<Vec<Listed>, String> {
    let metadata: grpc::ModelMetadataResponse = unframed(body)?;
    let inputs = metadata.inputs.into_iter();
    Ok(inputs
        .map(|input| Listed { name: input.name, datatype: input.datatype, shape: input.shape })
        .collect())
}
