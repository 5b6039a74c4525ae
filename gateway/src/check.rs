//! What a gateway would make of a repository, without serving it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sluice_engine::OnnxRuntime;
use sluice_features::Definitions;
use sluice_protocol::{Datatype, ModelName, ModelVersion};

use crate::deployment::Deployment;
use crate::error::StartError;
use crate::load::load;
use crate::shared::{Options, Shared};
use crate::source::{Faults, ModelFolder, Repository};

/// How to look at a repository.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// The models to look at; all of them when empty.
    pub models: Vec<String>,
    /// Feature definitions: a file or a folder.
    pub features: Option<PathBuf>,
    /// Serving cores that the gateway would have; as many as the machine has when absent.
    pub cores: Option<usize>,
    /// ONNX Runtime's shared library.
    pub onnxruntime: Option<PathBuf>,
}

/// What would become of a version, or of what stands where one should.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedVersion {
    /// The model, or what its folder is called where that is no model's name.
    pub model: String,
    /// The version. None where what would not be served is none.
    pub version: Option<ModelVersion>,
    /// How it would run. None when it would be refused.
    pub plan: Option<CheckedPlan>,
    /// Why it would be refused.
    pub refused: Option<String>,
}

/// How a version would run.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedPlan {
    /// `tick` or `workers`.
    pub executor: &'static str,
    /// Sessions of the graph, each with a copy of its weights.
    pub instances: usize,
    /// Rows that a run has at most.
    pub max_rows: usize,
    /// Why no two requests may share a run, if so.
    pub apart: Option<String>,
    /// The execution providers that would run the graph, the preferred one first.
    pub providers: Vec<String>,
    /// By how many bytes the process grew with each session, if that is known.
    pub session_memory: Option<u64>,
    /// Run time by rows, as measured.
    pub costs: String,
    /// What a request may bring: name, datatype and shape.
    pub inputs: Vec<String>,
    /// What it is answered with.
    pub outputs: Vec<String>,
}

/// Loads every version in the repository at `root` that a gateway would load, says what became of
/// each, in order, and lets go of it again. Beside them stands what is there, or should be, and
/// would not be served: versions that a policy or a label names, folders with other names.
pub fn check_repository(
    root: &Path,
    options: CheckOptions,
) -> Result<Vec<CheckedVersion>, StartError> {
    let CheckOptions { models, features, cores, onnxruntime } = options;
    let models = names(&models)?;
    let runtime = OnnxRuntime::load(onnxruntime.as_deref())?;
    let definitions = features.as_deref().map(Definitions::load).transpose()?;
    let cores = cores.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let options = Options { cores: cores.unwrap_or(1).max(1), ..Options::default() };
    let shared = Shared::new(runtime, definitions, None, options);
    let unreadable = |source| StartError::System {
        what: format!("read model repository {}", root.display()),
        source,
    };
    let repository = Repository::new(root.to_owned());
    let (found, faults) = repository.scan(models.as_ref()).map_err(unreadable)?;
    // Where a model has nothing to serve, what is wrong with its folder is the answer.
    let is_told = |model: &ModelName| {
        let folder = root.join(model.as_str());
        found.contains_key(model) || faults.keys().any(|path| path.starts_with(&folder))
    };
    if let Some(missing) = models.iter().flatten().find(|model| !is_told(model)) {
        let root = root.display();
        let complaint = format!("--model {missing}: {root} has no version of this model");
        return Err(StartError::Settings(vec![complaint]));
    }
    let mut checked: Vec<_> = unserved(root, &found, faults).collect();
    for (model, folder) in &found {
        for &version in folder.versions.keys() {
            let loaded = load(&shared, || folder.candidate(version));
            let (plan, refused) = match loaded {
                Ok(deployment) => (Some(CheckedPlan::of(&deployment)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let (model, version) = (model.to_string(), Some(version));
            checked.push(CheckedVersion { model, version, plan, refused });
        }
    }
    checked.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
    Ok(checked)
}

/// What is not served of the repository at `root`, but for the versions that were `found`.
fn unserved(
    root: &Path,
    found: &BTreeMap<ModelName, ModelFolder>,
    faults: Faults,
) -> impl Iterator<Item = CheckedVersion> {
    faults.into_iter().filter_map(move |(path, reason)| {
        let mut parts = path.strip_prefix(root).unwrap_or(&path).iter();
        let model = parts.next()?.to_string_lossy().into_owned();
        let version = parts.next().and_then(|part| part.to_str()?.parse().ok());
        let folder = found.get(model.as_str());
        let is_found = version.is_some_and(|version| {
            folder.is_some_and(|folder| folder.versions.contains_key(&version))
        });
        let refused = Some(reason);
        (!is_found).then_some(CheckedVersion { model, version, plan: None, refused })
    })
}

/// The models asked for; None when all are.
fn names(models: &[String]) -> Result<Option<BTreeSet<ModelName>>, StartError> {
    let names = models.iter().map(|model| model.parse::<ModelName>());
    let names: BTreeSet<_> = names
        .collect::<Result<_, _>>()
        .map_err(|error| StartError::Settings(vec![format!("--model: {error}")]))?;
    Ok(Some(names).filter(|names| !names.is_empty()))
}

impl CheckedPlan {
    fn of(deployment: &Arc<Deployment>) -> Self {
        let tensor = |name: &str, datatype: Datatype, shape: &[i64], optional: bool| {
            let optional = if optional { ", optional" } else { "" };
            format!("{name}: {datatype} {shape:?}{optional}")
        };
        let inputs = deployment.listed_inputs().into_iter();
        let outputs = deployment.outputs.iter();
        let running = &deployment.running;
        Self {
            executor: deployment.executor.name(),
            instances: running.instances,
            max_rows: running.max_rows,
            apart: running.apart.clone(),
            providers: running.providers.clone(),
            session_memory: running.session_memory,
            costs: running.costs.to_string(),
            inputs: inputs
                .map(|input| tensor(&input.name, input.datatype, &input.shape, input.optional))
                .collect(),
            outputs: outputs
                .map(|output| tensor(&output.name, output.datatype, &output.shape, false))
                .collect(),
        }
    }
}
