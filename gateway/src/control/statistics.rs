//! What was asked of each model version and where the time went, as Triton tells it.

use std::collections::HashMap;
use std::time::SystemTime;

use sluice_protocol::grpc::{
    InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration,
};

use crate::catalog::Catalog;
use crate::counters::{Statistics, Tally};
use crate::deployment::Deployment;
use crate::error::GatewayError;

/// The statistics of one version, of all loaded versions of a model, or of all models when none
/// is named (empty names name nothing). What is not loaded is a mistake of the caller's here,
/// not something that was not found.
pub(crate) fn statistics(
    catalog: &Catalog,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<ModelStatistics>, GatewayError> {
    let Some(model) = model.filter(|name| !name.is_empty()) else {
        let all = catalog.models().into_values().flat_map(|model| model.versions.values());
        return Ok(all.map(|deployment| of(deployment)).collect());
    };
    let unknown = |error: GatewayError| GatewayError::Invalid(error.message());
    match (version.filter(|version| !version.is_empty()), catalog.model(model)) {
        (None, Some(known)) if !known.versions.is_empty() => {
            Ok(known.versions.values().map(|deployment| of(deployment)).collect())
        }
        (version, _) => Ok(vec![of(catalog.resolve(model, version).map_err(unknown)?)]),
    }
}

fn of(deployment: &Deployment) -> ModelStatistics {
    let Statistics { tallies, last_execution, sizes } = deployment.counters.statistics();
    let since_epoch = last_execution.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let last_inference =
        since_epoch.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let batch_stats = sizes.into_iter().map(|(batch_size, times)| InferBatchStatistics {
        batch_size,
        compute_input: duration(times.input),
        compute_infer: duration(times.infer),
        compute_output: duration(times.output),
    });
    ModelStatistics {
        name: deployment.model.to_string(),
        version: deployment.version.to_string(),
        last_inference: last_inference.unwrap_or(0),
        inference_count: tallies.inferences,
        execution_count: tallies.executions,
        inference_stats: Some(InferStatistics {
            success: duration(tallies.success),
            fail: duration(tallies.fail),
            queue: duration(tallies.queue),
            compute_input: duration(tallies.input),
            compute_infer: duration(tallies.infer),
            compute_output: duration(tallies.output),
            cache_hit: duration(tallies.cache_hit),
            cache_miss: duration(tallies.cache_miss),
        }),
        batch_stats: batch_stats.collect(),
        memory_usage: Vec::new(),
        // Of models that answer one request several times, of which there are none.
        response_stats: HashMap::new(),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "every key is there, also when it counts nothing")]
const fn duration(tally: Tally) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: tally.count, ns: tally.nanoseconds })
}
