//! How a server ran what it was asked: its own statistics, where it has Triton's.

use http::Uri;
use serde::{Deserialize, Serialize};
use sluice_protocol::grpc;

use super::bodies::{framed, grpc_headers, unframed};
use super::once::once;
use super::{Asked, Protocol};
use crate::check::Check;
use crate::options::Question;

/// What a server has counted of a model, over all of its versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ModelRuns {
    /// The model.
    pub model: String,
    /// Rows that were run.
    pub rows: u64,
    /// Runs of the graph.
    pub runs: u64,
}

impl ModelRuns {
    /// The rows of a run, on average; none where there was no run.
    pub fn mean_batch(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.rows as f64 / self.runs as f64)
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let (rows, runs) =
            (self.rows.saturating_sub(before.rows), self.runs.saturating_sub(before.runs));
        Self { model: self.model.clone(), rows, runs }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Statistics {
    model_stats: Vec<Counted>,
}

#[derive(Debug, Deserialize)]
struct Counted {
    inference_count: u64,
    execution_count: u64,
}

/// What the server at `url` has counted of each of the models by now; nothing of those of which
/// it tells nothing, as most servers do not. This blocks for some seconds at most.
pub fn model_runs(url: &Uri, asked: &Asked, allow_remote: bool) -> Vec<ModelRuns> {
    asked.models.iter().filter_map(|model| of(url, model, asked.protocol, allow_remote)).collect()
}

fn of(url: &Uri, model: &str, protocol: Protocol, allow_remote: bool) -> Option<ModelRuns> {
    let base = url.to_string();
    let base = base.trim_end_matches('/');
    let question = if protocol == Protocol::Grpc {
        let url = format!("{base}/inference.GRPCInferenceService/ModelStatistics");
        let named = grpc::ModelStatisticsRequest { name: model.to_owned(), ..Default::default() };
        let question = Question::new(url.parse().ok()?);
        Question { headers: grpc_headers(), bodies: vec![framed(&named)], ..question }
    } else {
        Question::new(format!("{base}/v2/models/{model}/stats").parse().ok()?)
    };
    let answer = once(question, protocol.transport(), allow_remote).ok()?.ok()?;
    let check = if protocol == Protocol::Grpc { Check::Grpc } else { Check::Status };
    check.judge(&answer).ok()?;
    let counted = if protocol == Protocol::Grpc {
        let statistics: grpc::ModelStatisticsResponse = unframed(&answer.body).ok()?;
        let counted = statistics.model_stats.into_iter().map(|of_version| Counted {
            inference_count: of_version.inference_count,
            execution_count: of_version.execution_count,
        });
        counted.collect()
    } else {
        serde_json::from_slice::<Statistics>(&answer.body).ok()?.model_stats
    };
    let sum = |of: fn(&Counted) -> u64| counted.iter().map(of).sum();
    let (rows, runs) = (sum(|c| c.inference_count), sum(|c| c.execution_count));
    Some(ModelRuns { model: model.to_owned(), rows, runs })
}
