//! The shared memory extension over gRPC.

use std::collections::HashMap;

use sluice_protocol::grpc::system_shared_memory_status_response::RegionStatus;
use sluice_protocol::grpc::{
    CudaSharedMemoryStatusResponse, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusResponse,
};
use tonic::{Response, Status};

use crate::control::exposure::{ControlGroup, Port};
use crate::control::shared_memory::no_cuda_region;
use crate::error::GatewayError;
use crate::shared::Shared;

/// Whether the serving ports answer calls about regions.
pub(super) fn check(shared: &Shared) -> Result<(), GatewayError> {
    shared.exposed().check(ControlGroup::SharedMemory, Port::Serving)
}

pub(super) fn status(
    shared: &Shared,
    name: &str,
) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
    check(shared)?;
    let listed = shared.regions.status(Some(name))?;
    let regions = listed.iter().map(|region| {
        let status = RegionStatus {
            name: region.name.clone(),
            key: region.key.clone(),
            offset: region.offset,
            byte_size: region.byte_size,
        };
        (region.name.clone(), status)
    });
    Ok(Response::new(SystemSharedMemoryStatusResponse { regions: regions.collect() }))
}

pub(super) fn register(
    shared: &Shared,
    request: &SystemSharedMemoryRegisterRequest,
) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
    check(shared)?;
    let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request;
    shared.regions.register(name, key, *offset, *byte_size)?;
    Ok(Response::new(SystemSharedMemoryRegisterResponse {}))
}

/// Forgets one region, or all of them when none is named.
pub(super) fn unregister(shared: &Shared, name: &str) -> Result<(), GatewayError> {
    check(shared)?;
    shared.regions.unregister(Some(name).filter(|name| !name.is_empty()));
    Ok(())
}

/// There are no regions of a GPU's memory.
pub(super) fn cuda_status(
    shared: &Shared,
    name: &str,
) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
    check(shared)?;
    no_cuda_region(Some(name))?;
    Ok(Response::new(CudaSharedMemoryStatusResponse { regions: HashMap::new() }))
}
