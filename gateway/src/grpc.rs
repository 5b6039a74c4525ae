//! gRPC: V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod body;
mod statistics;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use hyper::body::Incoming;
use sluice_protocol::grpc::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::model_infer_response::InferOutputTensor;
use sluice_protocol::grpc::model_metadata_response::TensorMetadata;
use sluice_protocol::grpc::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use sluice_protocol::{
    Code, Datatype, InferRequest, InferResponse, ModelVersion, NamedTensor, Parameter, Parameters,
    RequestedOutput, Tensor, TensorData, element_count,
};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use crate::catalog::listed_versions;
use crate::deployment::{Deployment, PLATFORM};
use crate::error::GatewayError;
use crate::http::EXTENSIONS;
use crate::pipeline;
use crate::shared::Shared;
use crate::{inputs, unserved};

/// The service with its limits of size and time, for one connection. Messages may come
/// compressed; the limit is for what they hold.
pub(crate) fn service(
    shared: Arc<Shared>,
) -> impl tower::Service<
    http::Request<Incoming>,
    Response = http::Response<tonic::body::Body>,
    Error = Infallible,
    Future: 'static,
> + Clone {
    let server = GrpcInferenceServiceServer::new(Service(shared.clone()))
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(shared.limits.max_body)
        .max_encoding_message_size(usize::MAX);
    let counting = shared.clone();
    server
        .map_request(move |request: http::Request<Incoming>| {
            request.map(|incoming| body::Body::new(incoming, shared.clone()))
        })
        .map_response(move |mut response| {
            refuse_as_too_large(&counting, &mut response);
            response
        })
}

/// The decoder says of a message past the limit that it is out of range, and of one past it
/// when decompressed that a resource is exhausted. Nothing here gives the first code itself,
/// and the second is the one that clients know for this.
fn refuse_as_too_large(shared: &Shared, response: &mut http::Response<tonic::body::Body>) {
    let Some(status) = response.headers_mut().get_mut(Status::GRPC_STATUS) else { return };
    if tonic::Code::from_bytes(status.as_bytes()) != tonic::Code::OutOfRange {
        return;
    }
    *status = HeaderValue::from(tonic::Code::ResourceExhausted as i32);
    shared.metrics.count_unrouted(Code::TooLarge);
}

/// The service, on every core.
#[derive(Debug, Clone)]
struct Service(Arc<Shared>);

impl Service {
    /// A version that is no number is a mistake, where one that is not there is not found.
    fn check_version(&self, version: &str) -> Result<(), GatewayError> {
        if version.is_empty() || version.parse::<ModelVersion>().is_ok() {
            return Ok(());
        }
        self.0.metrics.count_unrouted(Code::InvalidArgument);
        Err(GatewayError::Invalid(format!("model version {version:?} is no number")))
    }
}

impl From<GatewayError> for Status {
    fn from(error: GatewayError) -> Self {
        error.log();
        Self::new(error.code().grpc(), error.message())
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _request: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let ModelReadyRequest { name, version } = request.into_inner();
        self.check_version(&version)?;
        // Triton's clients want false, not an error, for a model that is unknown.
        let ready = self.0.catalog.snapshot().resolve(&name, Some(&version)).is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "sluice".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        self.check_version(&version)?;
        let catalog = self.0.catalog.snapshot();
        let deployment = catalog.resolve(&name, Some(&version))?;
        let inputs = deployment.listed_inputs().into_iter().map(|input| TensorMetadata {
            name: input.name,
            datatype: input.datatype.as_str().to_owned(),
            shape: input.shape,
        });
        let outputs = deployment.outputs.iter().map(|spec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.as_str().to_owned(),
            shape: spec.shape.clone(),
        });
        Ok(Response::new(ModelMetadataResponse {
            name: deployment.model.to_string(),
            versions: listed_versions(&catalog, deployment, Some(&version)),
            platform: PLATFORM.to_owned(),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            properties: std::collections::HashMap::new(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let mut wire = request.into_inner();
        let model = std::mem::take(&mut wire.model_name);
        let version = std::mem::take(&mut wire.model_version);
        self.check_version(&version)?;
        let raw = !wire.raw_input_contents.is_empty();
        let answered =
            pipeline::infer(&self.0, &model, Some(&version), |deployment| decode(deployment, wire));
        Ok(Response::new(encode(answered.await?, raw)))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        statistics::model_statistics(&self.0, request.get_ref()).map(Response::new)
    }
}

fn decode(deployment: &Deployment, wire: ModelInferRequest) -> Result<InferRequest, GatewayError> {
    inputs::check_count(deployment, wire.inputs.len())?;
    unserved::check(wire.parameters.keys())?;
    let tensors = wire.inputs.iter().map(|input| &input.parameters);
    for parameters in tensors.chain(wire.outputs.iter().map(|output| &output.parameters)) {
        unserved::check(parameters.keys())?;
    }
    let mut raw = wire.raw_input_contents.into_iter();
    let is_raw = raw.len() > 0;
    if is_raw && raw.len() != wire.inputs.len() {
        return Err(GatewayError::Invalid(format!(
            "raw_input_contents has {} entries for {} inputs",
            raw.len(),
            wire.inputs.len()
        )));
    }
    let inputs = wire
        .inputs
        .into_iter()
        .map(|input| decode_input(input, raw.next()))
        .collect::<Result<_, _>>()?;
    let outputs = wire.outputs.into_iter();
    Ok(InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: wire.id,
        parameters: wire.parameters.into_iter().filter_map(parameter).collect(),
        inputs,
        outputs: outputs.map(|o| RequestedOutput { name: o.name }).collect(),
    })
}

fn parameter((name, value): (String, InferParameter)) -> Option<(String, Parameter)> {
    let parameter = match value.parameter_choice? {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int64(value),
        ParameterChoice::StringParam(value) => Parameter::String(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint64(value),
    };
    Some((name, parameter))
}

fn decode_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, GatewayError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let datatype = Datatype::parse(&datatype).ok_or_else(|| {
        GatewayError::input(&name, format!("has the unknown datatype {datatype:?}"))
    })?;
    element_count(&shape).map_err(|error| GatewayError::shape(&name, &error))?;
    let data = match (contents, raw) {
        (Some(_), Some(_)) => {
            return Err(GatewayError::input(&name, "has contents beside raw_input_contents"));
        }
        (None, Some(raw)) => TensorData::from_raw(datatype, &raw)
            .map_err(|error| GatewayError::shape(&name, &error))?,
        (Some(contents), None) => {
            typed(datatype, contents).map_err(|reason| GatewayError::input(&name, reason))?
        }
        (None, None) => return Err(GatewayError::input(&name, "has no contents")),
    };
    let tensor = Tensor::new(shape, data).map_err(|error| GatewayError::shape(&name, &error))?;
    Ok(NamedTensor { name, tensor })
}

/// The elements of the one field that belongs to `datatype`.
fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<TensorData, String> {
    fn narrow<T: TryFrom<W>, W: Copy + std::fmt::Display>(
        datatype: Datatype,
        values: &[W],
    ) -> Result<Vec<T>, String> {
        let narrowed = values.iter().map(|&value| {
            T::try_from(value)
                .map_err(|_| format!("element {value} is out of the range of {datatype}"))
        });
        narrowed.collect()
    }
    let c = contents;
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(c.bool_contents),
        Datatype::Int8 => TensorData::Int8(narrow(datatype, &c.int_contents)?),
        Datatype::Int16 => TensorData::Int16(narrow(datatype, &c.int_contents)?),
        Datatype::Int32 => TensorData::Int32(c.int_contents),
        Datatype::Int64 => TensorData::Int64(c.int64_contents),
        Datatype::Uint8 => TensorData::Uint8(narrow(datatype, &c.uint_contents)?),
        Datatype::Uint16 => TensorData::Uint16(narrow(datatype, &c.uint_contents)?),
        Datatype::Uint32 => TensorData::Uint32(c.uint_contents),
        Datatype::Uint64 => TensorData::Uint64(c.uint64_contents),
        Datatype::Fp32 => TensorData::Fp32(c.fp32_contents),
        Datatype::Fp64 => TensorData::Fp64(c.fp64_contents),
        Datatype::Bytes => TensorData::Bytes(c.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} goes into raw_input_contents"));
        }
    })
}

/// Raw in, raw out; typed in, typed out, unless an output has no typed form.
fn encode(response: InferResponse, raw: bool) -> ModelInferResponse {
    let has_typed_form =
        |output: &NamedTensor| !matches!(output.tensor.datatype(), Datatype::Fp16 | Datatype::Bf16);
    let raw = raw || !response.outputs.iter().all(has_typed_form);
    let mut raw_contents = Vec::new();
    let outputs = response.outputs.into_iter().map(|NamedTensor { name, tensor }| {
        let datatype = tensor.datatype().as_str().to_owned();
        let (shape, data) = tensor.into_parts();
        let contents = if raw {
            let mut bytes = Vec::new();
            data.write_raw(&mut bytes);
            raw_contents.push(bytes.into());
            None
        } else {
            Some(contents(data))
        };
        let parameters = std::collections::HashMap::new();
        InferOutputTensor { name, datatype, shape, parameters, contents }
    });
    ModelInferResponse {
        outputs: outputs.collect(),
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id,
        parameters: wire_parameters(response.parameters),
        raw_output_contents: raw_contents,
    }
}

fn contents(data: TensorData) -> InferTensorContents {
    let mut c = InferTensorContents::default();
    match data {
        TensorData::Bool(v) => c.bool_contents = v,
        TensorData::Int8(v) => c.int_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Int16(v) => c.int_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Int32(v) => c.int_contents = v,
        TensorData::Int64(v) => c.int64_contents = v,
        TensorData::Uint8(v) => c.uint_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Uint16(v) | TensorData::Fp16(v) | TensorData::Bf16(v) => {
            c.uint_contents = v.into_iter().map(Into::into).collect();
        }
        TensorData::Uint32(v) => c.uint_contents = v,
        TensorData::Uint64(v) => c.uint64_contents = v,
        TensorData::Fp32(v) => c.fp32_contents = v,
        TensorData::Fp64(v) => c.fp64_contents = v,
        TensorData::Bytes(v) => c.bytes_contents = v,
    }
    c
}

fn wire_parameters(parameters: Parameters) -> std::collections::HashMap<String, InferParameter> {
    let wire = parameters.into_iter().map(|(name, parameter)| {
        let choice = match parameter {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::Int64(value) => ParameterChoice::Int64Param(value),
            Parameter::Uint64(value) => ParameterChoice::Uint64Param(value),
            Parameter::Double(value) => ParameterChoice::DoubleParam(value),
            Parameter::String(value) => ParameterChoice::StringParam(value),
        };
        (name, InferParameter { parameter_choice: Some(choice) })
    });
    wire.collect()
}
