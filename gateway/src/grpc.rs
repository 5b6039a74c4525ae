//! gRPC: V2 of the inference protocol. Decodes, calls the pipeline, encodes.

mod body;
mod decode;
mod encode;

use std::convert::Infallible;
use std::sync::Arc;

use http::HeaderValue;
use hyper::body::Incoming;
use sluice_protocol::grpc::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use sluice_protocol::grpc::model_metadata_response::TensorMetadata;
use sluice_protocol::grpc::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use sluice_protocol::{Code, ModelVersion};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};
use tower::ServiceExt;

use crate::catalog::listed_versions;
use crate::deployment::PLATFORM;
use crate::error::GatewayError;
use crate::http::EXTENSIONS;
use crate::pipeline;
use crate::shared::Shared;

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
        let answered = pipeline::infer(&self.0, &model, Some(&version), |deployment| {
            decode::request(deployment, wire)
        });
        Ok(Response::new(encode::response(answered.await?, raw)))
    }
}
