//! `GET /v2/models/stats` and the like: Triton's statistics in JSON.

use serde_json::{Value, json};
use sluice_protocol::grpc::{InferBatchStatistics, ModelStatistics, StatisticDuration};

use crate::catalog::Catalog;
use crate::control::statistics::statistics;
use crate::error::GatewayError;

/// The reply for all models, for one, or for one version of it.
pub(super) fn model_statistics(
    catalog: &Catalog,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Value, GatewayError> {
    let all = statistics(catalog, model, version)?;
    Ok(json!({"model_stats": all.iter().map(one).collect::<Vec<_>>()}))
}

fn one(statistics: &ModelStatistics) -> Value {
    let of = statistics.inference_stats.unwrap_or_default();
    json!({
        "name": statistics.name,
        "version": statistics.version,
        "last_inference": statistics.last_inference,
        "inference_count": statistics.inference_count,
        "execution_count": statistics.execution_count,
        "inference_stats": {
            "success": duration(of.success),
            "fail": duration(of.fail),
            "queue": duration(of.queue),
            "compute_input": duration(of.compute_input),
            "compute_infer": duration(of.compute_infer),
            "compute_output": duration(of.compute_output),
            "cache_hit": duration(of.cache_hit),
            "cache_miss": duration(of.cache_miss),
        },
        "response_stats": {},
        "batch_stats": statistics.batch_stats.iter().map(batch).collect::<Vec<_>>(),
        "memory_usage": [],
    })
}

fn batch(statistics: &InferBatchStatistics) -> Value {
    json!({
        "batch_size": statistics.batch_size,
        "compute_input": duration(statistics.compute_input),
        "compute_infer": duration(statistics.compute_infer),
        "compute_output": duration(statistics.compute_output),
    })
}

fn duration(duration: Option<StatisticDuration>) -> Value {
    let StatisticDuration { count, ns } = duration.unwrap_or_default();
    json!({"count": count, "ns": ns})
}
