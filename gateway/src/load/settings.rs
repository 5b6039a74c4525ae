//! `deployment.toml`: how a model is run. Operators change it; the package stays.

use std::time::Duration;

use serde::Deserialize;
use sluice_protocol::{Format, read_toml};

use crate::error::LoadError;

/// What an operator may say about how a model is run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeploymentSettings {
    #[serde(rename = "format")]
    _format: Option<Format<1>>,
    /// `tick` or `workers`; chosen by measured cost when absent.
    pub(super) executor: Option<ExecutorChoice>,
    /// Worker threads, each with a copy of the weights.
    pub(super) instances: Option<usize>,
    /// Rows a run at most; found by measurement when absent.
    pub(super) max_batch_rows: Option<usize>,
    /// How long an incomplete batch waits for more rows, `500us` for one. Asks for workers.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub(super) max_queue_delay: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExecutorChoice {
    Tick,
    Workers,
}

impl DeploymentSettings {
    /// Reads `deployment.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        let settings: Self = read_toml(text).map_err(LoadError::Settings)?;
        if settings.instances == Some(0) || settings.max_batch_rows == Some(0) {
            let reason = "instances and max_batch_rows must be at least 1";
            return Err(LoadError::Settings(reason.to_owned()));
        }
        Ok(settings)
    }
}
