//! What a server says of a model's inputs.

use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use sluice_protocol::{Datatype, TensorSpec, grpc};

use super::Protocol;
use super::bodies::{framed, grpc_headers, unframed};
use crate::check::{Check, Failure, Fault};
use crate::connection::{Answer, Connection};
use crate::error::BenchError;
use crate::options::{LoadOptions, Question, Template};
use crate::target::Target;

/// How long a server may take to say what its model is.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let answer = ask(&url, model, protocol, allow_remote)?
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

/// Asks once, on a connection of its own.
fn ask(
    url: &Uri,
    model: &str,
    protocol: Protocol,
    allow_remote: bool,
) -> Result<Result<Answer, Fault>, BenchError> {
    let target = Target::resolve(url, allow_remote)?;
    let mut options = LoadOptions::new(url.clone());
    options.transport = protocol.transport();
    if protocol == Protocol::Grpc {
        let named = grpc::ModelMetadataRequest { name: model.to_owned(), ..Default::default() };
        options.questions = vec![Question {
            headers: grpc_headers(),
            bodies: vec![framed(&named)],
            ..Question::new(url.clone())
        }];
    }
    let mut connection = Connection::new(target.addresses.as_slice().into(), options.transport);
    let (_, request) = Template::new(options, &target).request(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(BenchError::Start)?.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, connection.ask(request)).await;
        // Closed in here, by the runtime that drives it.
        drop(connection);
        let detail = format!("no answer in {PATIENCE:?}");
        asked.unwrap_or(Err(Fault { failure: Failure::Timeout, detail }))
    }))
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
