//! ModelStatistics: Triton's statistics in protobuf.

use sluice_protocol::grpc::{ModelStatisticsRequest, ModelStatisticsResponse};
use tonic::Status;

use crate::control::statistics::statistics;
use crate::shared::Shared;

/// The statistics of what the request names.
pub(super) fn model_statistics(
    shared: &Shared,
    request: &ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, Status> {
    let ModelStatisticsRequest { name, version } = request;
    let catalog = shared.catalog.snapshot();
    let model_stats = statistics(&catalog, Some(name), Some(version))?;
    Ok(ModelStatisticsResponse { model_stats })
}
