//! What a gateway would make of a repository, without serving it.

use std::collections::BTreeSet;
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
use crate::source::Repository;

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

/// What would become of a version.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedVersion {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: ModelVersion,
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
    /// Run time by rows, as measured.
    pub costs: String,
    /// What a request may bring: name, datatype and shape.
    pub inputs: Vec<String>,
    /// What it is answered with.
    pub outputs: Vec<String>,
}

/// Loads every version in the repository at `root` that a gateway would load, says what became of
/// each, in order, and lets go of it again.
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
    let found = Repository::new(root.to_owned()).scan(models.as_ref()).map_err(unreadable)?;
    if let Some(missing) = models.iter().flatten().find(|model| !found.contains_key(*model)) {
        let root = root.display();
        let complaint = format!("--model {missing}: {root} has no version of this model");
        return Err(StartError::Settings(vec![complaint]));
    }
    let mut checked = Vec::new();
    for (model, folder) in found {
        for &version in folder.versions.keys() {
            let loaded = folder.candidate(version).and_then(|candidate| load(&shared, &candidate));
            let (plan, refused) = match loaded {
                Ok(deployment) => (Some(CheckedPlan::of(&deployment)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            checked.push(CheckedVersion { model: model.clone(), version, plan, refused });
        }
    }
    Ok(checked)
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
