//! `deployment.toml`: how a model is run. Operators change it; the package stays.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use sluice_engine::{CPU, EngineError, Provider};
use sluice_protocol::{Format, ModelVersion, read_toml};

use crate::error::LoadError;

/// Less than that a machine takes now and then for the cheapest run, when it is busy.
const SHORTEST_RUN: Duration = Duration::from_millis(10);

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
    /// Past this much predicted work in its queue, `200ms` for one, its requests are refused; the
    /// gateway's own bound when absent.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub(super) max_waiting: Option<Duration>,
    /// How long a run may take, `2s` for one, before it is ended.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub(super) max_run_time: Option<Duration>,
    /// Execution providers, the preferred one first, each with options by ONNX Runtime's names:
    /// `[{ name = "cuda", device_id = 0 }, { name = "cpu" }]`. The CPU when absent.
    pub(super) providers: Vec<AskedProvider>,
    /// Names for versions of the model: the part of a path behind `/labels/`.
    pub(crate) labels: BTreeMap<String, ModelVersion>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExecutorChoice {
    Tick,
    Workers,
}

/// An execution provider as it is written.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AskedProvider {
    name: String,
    #[serde(flatten)]
    options: BTreeMap<String, ProviderOption>,
}

/// A value of an option, of which ONNX Runtime has the text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum ProviderOption {
    Truth(bool),
    Whole(i64),
    Number(f64),
    Text(String),
}

impl AskedProvider {
    pub(super) fn resolve(&self) -> Result<Provider, EngineError> {
        let text = |option: &ProviderOption| match option {
            // As its own options have it.
            ProviderOption::Truth(value) => u8::from(*value).to_string(),
            ProviderOption::Whole(value) => value.to_string(),
            ProviderOption::Number(value) => value.to_string(),
            ProviderOption::Text(value) => value.clone(),
        };
        let options = self.options.iter().map(|(key, value)| (key.clone(), text(value)));
        Provider::new(&self.name, options.collect())
    }
}

impl DeploymentSettings {
    /// Reads `deployment.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        let settings: Self = read_toml(text).map_err(LoadError::Settings)?;
        if settings.instances == Some(0) || settings.max_batch_rows == Some(0) {
            let reason = "instances and max_batch_rows must be at least 1";
            return Err(LoadError::Settings(reason.to_owned()));
        }
        if settings.max_run_time.is_some_and(|most| most < SHORTEST_RUN) {
            let reason = format!("max_run_time must be at least {SHORTEST_RUN:?}");
            return Err(LoadError::Settings(reason));
        }
        if let Some(error) = settings.providers.iter().find_map(|one| one.resolve().err()) {
            return Err(LoadError::Settings(error.to_string()));
        }
        let is_tick = settings.executor == Some(ExecutorChoice::Tick);
        if is_tick && settings.providers.iter().any(|one| one.name != CPU) {
            let reason =
                "executor \"tick\" is for the CPU: a serving core would wait for the device";
            return Err(LoadError::Settings(reason.to_owned()));
        }
        let no_part = |label: &&String| label.is_empty() || label.contains(['/', ':']);
        if let Some(label) = settings.labels.keys().find(no_part) {
            let reason = format!("label {label:?} cannot be part of a path");
            return Err(LoadError::Settings(reason));
        }
        Ok(settings)
    }
}
