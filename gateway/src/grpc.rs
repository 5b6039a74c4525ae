//! gRPC: V2 of the inference protocol, health and reflection. Decodes, calls the pipeline,
//! encodes.

mod access;
mod body;
mod call;
mod codec;
mod decode;
mod encode;
mod flood;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod infer;
mod logging;
mod reflection;
mod repository;
mod shared_memory;
mod statistics;
mod stream;
mod taking;
mod trace;
mod traced;
mod transport;
mod weight;

use std::sync::Arc;

use sluice_protocol::grpc::grpc_inference_service_server::GrpcInferenceService;
use sluice_protocol::grpc::model_metadata_response::TensorMetadata;
use sluice_protocol::grpc::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse,
    CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse,
    CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse, LogSettingsRequest,
    LogSettingsResponse, ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest,
    ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse, TraceSettingRequest,
    TraceSettingResponse,
};
use tonic::{Request, Response, Status};

pub(crate) use call::answer;
pub(crate) use flood::FloodGuard;
pub(crate) use taking::{Answer, Untaken, while_taken};
pub(crate) use transport::Transport;
pub use transport::TransportSettings;

use crate::catalog::listed_versions;
use crate::control::exposure::Port;
use crate::control::extensions::extensions;
use crate::control::shared_memory::no_cuda;
use crate::deployment::PLATFORM;
use crate::dialect::UnknownReady;
use crate::shared::Shared;

/// The methods of the protocol's service but for ModelInfer and ModelStreamInfer, which `call`
/// hands to `infer` and `stream`.
#[derive(Debug, Clone)]
struct InferenceService(Arc<Shared>);

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
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
        infer::check_version(&self.0, &version)?;
        let ready = match self.0.catalog.snapshot().resolve(&name, Some(&version)) {
            Ok(_) => true,
            Err(_) if self.0.dialect().unknown_ready == UnknownReady::False => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "sluice".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: extensions(&self.0, Port::Serving).into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let ModelMetadataRequest { name, version } = request.into_inner();
        infer::check_version(&self.0, &version)?;
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

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let ModelConfigRequest { name, version } = request.into_inner();
        infer::check_version(&self.0, &version)?;
        let catalog = self.0.catalog.snapshot();
        let config = catalog.resolve(&name, Some(&version))?.config.clone();
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        repository::index(&self.0, request.into_inner()).await
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        repository::load(&self.0, request.into_inner()).await
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        repository::unload(&self.0, request.into_inner()).await
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        statistics::model_statistics(&self.0, request.get_ref()).map(Response::new)
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        shared_memory::status(&self.0, &request.get_ref().name)
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        shared_memory::register(&self.0, request.get_ref())
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        shared_memory::unregister(&self.0, &request.get_ref().name)?;
        Ok(Response::new(SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        shared_memory::cuda_status(&self.0, &request.get_ref().name)
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        shared_memory::check(&self.0)?;
        Err(no_cuda().into())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        shared_memory::check(&self.0)?;
        Ok(Response::new(CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        trace::trace_setting(&self.0, request.into_inner()).map(Response::new)
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        logging::log_settings(&self.0, request.into_inner())
    }
}
