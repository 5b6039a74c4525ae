//! From a version's files to a deployment: verified, warmed up and measured before anybody
//! can see it. Runs on a thread of its own, never on a serving core.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use sluice_engine::{Engine, OnnxEngine};
use sluice_features::ServicePlan;
use sluice_protocol::{
    Digest, FeatureServicePin, Format, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName,
    ModelVersion, PARITY_FILE, ParityRows, Tensor, TensorData, TensorSpec,
};

use crate::counters::Counters;
use crate::deployment::{Deployment, FeatureInput};
use crate::error::LoadError;
use crate::executor::{CostCurve, Executor, Limits, WorkerSettings, measure};
use crate::shared::Shared;

/// A version's files as they were read, once: what is checked is what is run.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) model: ModelName,
    pub(crate) version: ModelVersion,
    /// Contents by path inside the version.
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) settings: DeploymentSettings,
}

/// `deployment.toml`: how a model is run. Operators change it; the package stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DeploymentSettings {
    format: Option<Format<1>>,
    /// `tick` or `workers`; chosen by measured cost when absent.
    executor: Option<ExecutorChoice>,
    /// Worker threads, each with a copy of the weights.
    instances: Option<usize>,
    /// Rows a run at most; found by measurement when absent.
    max_batch_rows: Option<usize>,
    /// How long an incomplete batch waits for more rows, `500us` for one. Asks for workers.
    #[serde(deserialize_with = "duration")]
    max_queue_delay: Option<std::time::Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExecutorChoice {
    Tick,
    Workers,
}

fn duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<std::time::Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

impl DeploymentSettings {
    /// Reads `deployment.toml`.
    pub(crate) fn parse(text: &str) -> Result<Self, LoadError> {
        let settings: Self =
            toml::from_str(text).map_err(|error| LoadError::Settings(error.to_string()))?;
        if settings.format.is_none() {
            return Err(LoadError::Settings("lacks `format = 1`".to_owned()));
        }
        if settings.instances == Some(0) || settings.max_batch_rows == Some(0) {
            let reason = "instances and max_batch_rows must be at least 1";
            return Err(LoadError::Settings(reason.to_owned()));
        }
        Ok(settings)
    }
}

/// Verifies, opens, warms up and measures a candidate.
pub(crate) fn load(shared: &Shared, candidate: &Candidate) -> Result<Arc<Deployment>, LoadError> {
    let manifest = verified_manifest(candidate)?;
    let graph = file(candidate, MODEL_FILE)?;
    let mut first = shared.runtime.open(graph, 1)?;
    if let Some(manifest) = &manifest {
        check_signature("input", &manifest.inputs, first.inputs())?;
        check_signature("output", &manifest.outputs, first.outputs())?;
    }
    let pin = manifest.as_ref().and_then(|manifest| manifest.feature_service.as_ref());
    let features = pin.map(|pin| feature_input(shared, &first, pin)).transpose()?;
    let parity = parity_rows(candidate)?;
    if let Some(parity) = &parity {
        check_parity(&mut first, parity)?;
    }
    let batches = is_batching(&first);
    let row = sample_row(&first, parity.as_ref());
    let costs = measure(&mut first, &row, batches)?;
    let (inputs, outputs) = (first.inputs().to_vec(), first.outputs().to_vec());
    let (executor, counters) = executor(shared, candidate, first, &costs, batches)?;
    tracing::info!(
        model = %candidate.model, version = %candidate.version, executor = executor.name(),
        costs = %costs, "loaded model version"
    );
    Ok(Arc::new(Deployment {
        model: candidate.model.clone(),
        version: candidate.version,
        inputs,
        outputs,
        batches,
        features,
        executor,
        counters,
    }))
}

fn file<'c>(candidate: &'c Candidate, path: &str) -> Result<&'c Bytes, LoadError> {
    candidate.files.get(path).ok_or_else(|| LoadError::Package(format!("{path} is missing")))
}

/// The manifest, if the version has one, with every file's digest checked against it.
fn verified_manifest(candidate: &Candidate) -> Result<Option<Manifest>, LoadError> {
    let Some(bytes) = candidate.files.get(MANIFEST_FILE) else { return Ok(None) };
    let manifest = Manifest::parse(bytes).map_err(|error| LoadError::Package(error.to_string()))?;
    if manifest.model != candidate.model {
        let (named, here) = (&manifest.model, &candidate.model);
        return Err(LoadError::Package(format!("package is of model {named}, not of {here}")));
    }
    for (path, expected) in &manifest.files {
        let found = Digest::of(file(candidate, path)?);
        if found != *expected {
            return Err(LoadError::Package(format!(
                "{path} has SHA-256 {found}, the manifest says {expected}"
            )));
        }
    }
    let listed = |path: &str| path == MANIFEST_FILE || manifest.files.contains_key(path);
    if let Some(extra) = candidate.files.keys().find(|path| !listed(path)) {
        return Err(LoadError::Package(format!("{extra} is not listed in the manifest")));
    }
    Ok(Some(manifest))
}

fn check_signature(
    kind: &str,
    manifest: &[TensorSpec],
    graph: &[TensorSpec],
) -> Result<(), LoadError> {
    if manifest == graph {
        return Ok(());
    }
    let list = |specs: &[TensorSpec]| {
        let each = specs.iter().map(|s| format!("{} {} {:?}", s.name, s.datatype, s.shape));
        each.collect::<Vec<_>>().join(", ")
    };
    let (said, has) = (list(manifest), list(graph));
    Err(LoadError::Package(format!("manifest says {kind}s {said}, the graph has {has}")))
}

fn feature_input(
    shared: &Shared,
    engine: &OnnxEngine,
    pin: &FeatureServicePin,
) -> Result<FeatureInput, LoadError> {
    let refuse =
        |reason: String| LoadError::Features(format!("feature service {}: {reason}", pin.name));
    let definitions = shared.definitions.as_ref().ok_or_else(|| {
        refuse("the model needs it, but the gateway was started without --features".to_owned())
    })?;
    let plan = definitions.plan(&pin.name).map_err(|error| refuse(error.to_string()))?;
    check_pin(&plan, pin).map_err(refuse)?;
    let index = engine.inputs().iter().position(|spec| spec.name == pin.input);
    let index = index.ok_or_else(|| refuse(format!("the graph has no input {:?}", pin.input)))?;
    Ok(FeatureInput { index, plan })
}

/// The model must get the features that it was trained with, not others of the same name.
fn check_pin(plan: &ServicePlan, pin: &FeatureServicePin) -> Result<(), String> {
    if plan.views() != pin.views {
        return Err(format!(
            "the model was trained with views {}, here it has {}",
            pin.views.join(", "),
            plan.views().join(", ")
        ));
    }
    if plan.columns() != pin.columns {
        return Err("its columns are not those that the model was trained with".to_owned());
    }
    if plan.schema_hash() != pin.schema_hash {
        return Err(format!(
            "its schema hash is {}, the model was trained with {}: a definition has changed",
            plan.schema_hash(),
            pin.schema_hash
        ));
    }
    Ok(())
}

fn parity_rows(candidate: &Candidate) -> Result<Option<ParityRows>, LoadError> {
    let Some(bytes) = candidate.files.get(PARITY_FILE) else { return Ok(None) };
    ParityRows::parse(bytes)
        .map(Some)
        .map_err(|error| LoadError::Package(format!("{PARITY_FILE} cannot be read: {error}")))
}

/// Runs the package's own rows and compares with what the learner answered.
fn check_parity(engine: &mut OnnxEngine, parity: &ParityRows) -> Result<(), LoadError> {
    let failed = |reason: String| LoadError::Parity(reason);
    let only = matches!(engine.inputs(), [only] if only.name == parity.input);
    let output = engine.outputs().iter().position(|spec| spec.name == parity.output);
    let (true, Some(output)) = (only, output) else {
        return Err(failed(format!("rows are for {} -> {}", parity.input, parity.output)));
    };
    let answers = engine.run(&[parity_tensor(&parity.rows).map_err(failed)?])?;
    let TensorData::Fp32(found) = answers[output].data() else {
        return Err(failed(format!("output {} is not FP32", parity.output)));
    };
    if found.len() != parity.expected.len() {
        return Err(failed(format!("{} rows gave {} answers", parity.rows.len(), found.len())));
    }
    let pairs = parity.expected.iter().map(|bits| f32::from_bits(*bits)).zip(found);
    for (row, (expected, answer)) in pairs.enumerate() {
        if !parity.matches(expected, *answer) {
            return Err(failed(format!("row {row} gives {answer}, the learner said {expected}")));
        }
    }
    Ok(())
}

fn parity_tensor(rows: &[Vec<u32>]) -> Result<Tensor, String> {
    let width = rows.first().map_or(0, Vec::len);
    let elements = rows.iter().flatten().map(|bits| f32::from_bits(*bits)).collect();
    let shape = [rows.len(), width].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
    Tensor::new(shape.to_vec(), TensorData::Fp32(elements)).map_err(|error| error.to_string())
}

/// Whether requests can share a run: the first dimension of everything is free.
fn is_batching(engine: &OnnxEngine) -> bool {
    engine.inputs().iter().chain(engine.outputs()).all(|spec| spec.shape.first() == Some(&-1))
}

/// One row to warm up and measure with: a parity row, else zeros (free dimensions are 1).
fn sample_row(engine: &OnnxEngine, parity: Option<&ParityRows>) -> Vec<Tensor> {
    let row = parity.and_then(|parity| parity.rows.get(..1)).map(parity_tensor);
    if let Some(Ok(tensor)) = row {
        return vec![tensor];
    }
    let zeros = engine.inputs().iter().map(|spec| {
        let shape: Vec<i64> = spec.shape.iter().map(|&size| size.max(1)).collect();
        let elements = shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).product();
        Tensor::new(shape, zeros(spec, elements)).expect("as many zeros as the shape needs")
    });
    zeros.collect()
}

fn zeros(spec: &TensorSpec, elements: usize) -> TensorData {
    match spec.datatype.size() {
        Some(size) => TensorData::from_raw(spec.datatype, &vec![0; size * elements].into())
            .expect("a whole number of elements"),
        None => TensorData::Bytes(vec![Bytes::new(); elements]),
    }
}

fn executor(
    shared: &Shared,
    candidate: &Candidate,
    first: OnnxEngine,
    costs: &CostCurve,
    batches: bool,
) -> Result<(Arc<Executor>, Arc<Counters>), LoadError> {
    let settings = &candidate.settings;
    let delay = settings.max_queue_delay.unwrap_or_default();
    let choice = settings.executor.unwrap_or(if costs.is_cheap() && delay.is_zero() {
        ExecutorChoice::Tick
    } else {
        ExecutorChoice::Workers
    });
    let (count, found) = match choice {
        ExecutorChoice::Tick => (shared.cores, costs.tick_rows()),
        ExecutorChoice::Workers => {
            (settings.instances.unwrap_or(shared.cores), costs.worthwhile_rows())
        }
    };
    let max_rows = if batches { settings.max_batch_rows.unwrap_or(found) } else { 1 };
    let limits = Limits {
        max_rows,
        row_cost: costs.row_cost(max_rows),
        max_waiting: shared.limits.max_waiting,
    };
    let graph = file(candidate, MODEL_FILE)?;
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(first)];
    while engines.len() < count {
        engines.push(Box::new(shared.runtime.open(graph, 1)?));
    }
    let workers = if choice == ExecutorChoice::Workers { count } else { 0 };
    let metrics = shared.metrics.deployment(&candidate.model, candidate.version);
    let counters = Arc::new(Counters::new(shared.cores, workers, metrics));
    let executor = match choice {
        ExecutorChoice::Tick => Executor::ticks(engines, limits),
        ExecutorChoice::Workers => {
            let settings = WorkerSettings { max_queue_delay: delay };
            Executor::workers(engines, limits, settings, counters.clone())
                .map_err(|error| LoadError::Package(format!("start workers: {error}")))?
        }
    };
    Ok((executor, counters))
}
