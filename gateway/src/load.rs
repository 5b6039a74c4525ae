//! From a version's files to a deployment: verified, warmed up and measured before anybody
//! can see it. Runs on a thread of its own, never on a serving core, and behind what serves.

mod costs;
mod graph;
mod parity;
mod plan;
mod probe;
mod settings;
mod trial;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sluice_engine::{CPU, Engine, OnnxEngine};
use sluice_features::ServicePlan;
use sluice_protocol::grpc::{ModelConfig, ModelParameter};
use sluice_protocol::{
    Digest, FeatureServicePin, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName, ModelVersion,
    TensorSpec,
};

use costs::Costs;
use parity::{check_parity, parity_rows};
use plan::Plan;
pub(crate) use probe::{random_tensor, zero_tensor};
use settings::AskedProvider;
pub(crate) use settings::DeploymentSettings;
use trial::Trial;

use crate::background;
use crate::deployment::{Deployment, DeploymentNumber, FeatureInput, Running};
use crate::error::LoadError;
use crate::model_config::{self, Scheduling, Signature, complete, warm_up};
use crate::resident::resident;
use crate::shared::Shared;
use crate::watchdog::{RunBound, Watched};

/// The parameter of a model's configuration that says which execution providers run it.
const PROVIDERS: &str = "execution_providers";

/// A version's files as they were read, once: what is checked is what is run.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) model: ModelName,
    pub(crate) version: ModelVersion,
    /// Contents by path inside the version.
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) settings: DeploymentSettings,
    /// What `config.pbtxt`, or whoever asked for the load, says of the model.
    pub(crate) config: Option<ModelConfig>,
    /// What its configuration names of the model's folder, label files and warm-up data, by path.
    pub(crate) beside: BTreeMap<String, Bytes>,
}

/// Reads, verifies, opens, warms up and measures a candidate. One that makes the gateway panic is
/// refused like any other that cannot be served. Where requests are answered already, they go
/// before all that.
pub(crate) fn load<C: Borrow<Candidate>>(
    shared: &Shared,
    read: impl FnOnce() -> Result<C, LoadError> + Send,
) -> Result<Arc<Deployment>, LoadError> {
    let started = Instant::now();
    let prepare = || refuse_panics(|| prepare(shared, read()?.borrow()));
    let prepared = match shared.is_started() {
        true => background::run("load", prepare)
            .unwrap_or_else(|error| Err(LoadError::Package(format!("start its thread: {error}")))),
        false => prepare(),
    };
    let loaded = refuse_panics(|| prepared?.start(shared))?;
    loaded.counters.set_load_time(started.elapsed());
    Ok(loaded)
}

/// By how much memory has grown, or nothing where it has shrunk meanwhile.
fn grown(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}

fn refuse_panics<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(LoadError::Package(format!("loading it panicked: {text}")))
    })
}

/// A candidate that can be served.
struct Prepared {
    model: ModelName,
    version: ModelVersion,
    asked: ModelConfig,
    signature: Signature,
    trial: Trial,
    costs: Costs,
    max_batch_size: Option<usize>,
    features: Option<FeatureInput>,
    providers: Vec<String>,
    /// Whether its operator says on which it is to run.
    names_providers: bool,
    session_memory: Option<u64>,
    plan: Plan,
    engines: Vec<Box<dyn Engine>>,
    bound: RunBound,
}

fn prepare(shared: &Shared, candidate: &Candidate) -> Result<Prepared, LoadError> {
    let manifest = verified_manifest(candidate)?;
    let asked = candidate.config.clone().unwrap_or_default();
    model_config::accept(&asked, &candidate.model)?;
    let scheduling = Scheduling::read(&asked)?;
    let bound = Plan::run_bound(shared, candidate);
    let bound = shared.watchdog.bound(bound);
    let at_first = resident();
    let mut first = open(shared, candidate, &bound)?;
    let with_one = resident();
    let providers = first.inner().providers().to_vec();
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
    let mut signature = Signature::agree(&asked, &first)?;
    model_config::attach_labels(&asked, &candidate.beside, &mut signature.outputs)?;
    let trial = Trial::run(&mut first, &signature, parity.as_ref())?;
    let costs =
        Costs::measure(&mut first, graph(candidate)?, &signature, &trial, parity.is_some())?;
    let batches = trial.apart.is_none();
    let max_batch_size = signature.batching.max_batch_size(batches);
    let on_cpu = providers.iter().all(|provider| provider == CPU);
    let most_rows = max_batch_size.filter(|_| batches);
    let plan = Plan::new(shared, candidate, scheduling, &costs, most_rows, on_cpu);
    let before_others = resident();
    let mut engines = plan.engines(shared, candidate, first, &bound)?;
    let others = engines.len() as u64 - 1;
    let session_memory = match others {
        0 => grown(at_first, with_one),
        // The first one has brought what all of them share.
        _ => grown(before_others, resident()).map(|all| all / others),
    };
    let stopped = || shared.is_draining();
    warm_up(&asked, &signature.inputs, max_batch_size, &candidate.beside, &mut engines, stopped)?;
    let (model, version) = (candidate.model.clone(), candidate.version);
    Ok(Prepared {
        model,
        version,
        asked,
        signature,
        trial,
        costs,
        max_batch_size,
        features,
        providers,
        names_providers: !candidate.settings.providers.is_empty(),
        session_memory,
        plan,
        engines,
        bound,
    })
}

impl Prepared {
    /// Starts what runs it: threads that are not to have the priority of loading.
    fn start(self, shared: &Shared) -> Result<Arc<Deployment>, LoadError> {
        let Self { model, version, asked, signature, trial, costs, .. } = self;
        let (instances, max_rows) = (self.engines.len(), self.plan.limits.max_rows);
        let name = (&model, version);
        let (executor, counters) =
            self.plan.start(shared, name, &asked, self.engines, self.bound)?;
        report(name, &trial, &costs, executor.name(), &self.providers);
        let batches = trial.apart.is_none();
        let info = shared.metrics.deployment_info(&model, version, &self.providers);
        let mut deployment = Deployment {
            model,
            version,
            number: DeploymentNumber::next(),
            inputs: signature.inputs,
            outputs: signature.outputs,
            batches,
            max_batch_size: self.max_batch_size,
            cached: asked.response_cache.is_some_and(|cache| cache.enable),
            config: ModelConfig::default(),
            features: self.features,
            running: Running {
                instances,
                max_rows,
                apart: trial.apart,
                costs: costs.curve,
                providers: self.providers,
                session_memory: self.session_memory,
            },
            executor,
            counters,
            _info: Some(info),
        };
        deployment.config = complete(&asked, &deployment, instances);
        if self.names_providers {
            let string_value = deployment.running.providers.join(",");
            let parameter = ModelParameter { string_value };
            deployment.config.parameters.insert(PROVIDERS.to_owned(), parameter);
        }
        Ok(Arc::new(deployment))
    }
}

/// One session of the candidate's graph, whose runs are bounded from the first one on.
fn open(
    shared: &Shared,
    candidate: &Candidate,
    bound: &RunBound,
) -> Result<Watched<OnnxEngine>, LoadError> {
    let asked = candidate.settings.providers.iter().map(AskedProvider::resolve);
    let providers = asked.collect::<Result<Vec<_>, _>>()?;
    let engine = shared.runtime.open_on(&providers, graph(candidate)?, 1)?;
    Ok(shared.watchdog.watch(engine, bound, &candidate.model, candidate.version))
}

/// Says what was loaded, and what an operator may be surprised by.
fn report(
    (model, version): (&ModelName, ModelVersion),
    trial: &Trial,
    costs: &Costs,
    executor: &str,
    providers: &[String],
) {
    if let Some(reason) = &trial.apart {
        tracing::info!(%model, %version, reason, "every request of this version runs alone");
    }
    if trial.row.is_none() {
        let reason = "the graph ran none of the rows that were tried";
        tracing::warn!(%model, %version, reason, "the cost of a run is unknown");
    }
    let costs = &costs.curve;
    let providers = providers.join(", ");
    tracing::info!(%model, %version, executor, providers, %costs, "loaded model version");
}

/// The graph's bytes, from the file that its configuration names, or the one of the usual name in
/// a folder of that name: Triton's form for a graph in several files.
fn graph(candidate: &Candidate) -> Result<&Bytes, LoadError> {
    let named = candidate.config.as_ref().map(|config| config.default_model_filename.as_str());
    let named = named.filter(|name| !name.is_empty()).unwrap_or(MODEL_FILE);
    let inside = || candidate.files.get(&format!("{named}/{MODEL_FILE}"));
    file(candidate, named).or_else(|missing| inside().ok_or(missing))
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
    engine: &dyn Engine,
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

#[cfg(test)]
mod tests {
    use super::refuse_panics;
    use crate::error::LoadError;

    #[test]
    fn a_candidate_that_panics_is_refused_with_what_the_panic_said() {
        let none: [u8; 0] = [];
        let out_of_bounds = refuse_panics(|| Ok(none[std::hint::black_box(3)])).unwrap_err();
        let plain = refuse_panics::<()>(|| panic!("plain")).unwrap_err();
        let wordless = refuse_panics::<()>(|| std::panic::panic_any(7)).unwrap_err();
        for (error, says) in [
            (out_of_bounds, "loading it panicked: index out of bounds"),
            (plain, "loading it panicked: plain"),
            (wordless, "loading it panicked: no message"),
        ] {
            assert!(error.to_string().contains(says), "{error}");
        }
        let refused = refuse_panics::<()>(|| Err(LoadError::Package("refused".to_owned())));
        assert_eq!(refused.unwrap_err().to_string(), "refused");
        assert_eq!(refuse_panics(|| Ok(1)).unwrap(), 1);
    }
}
