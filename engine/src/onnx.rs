//! ONNX Runtime through `ort`: one environment a process, one session an engine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionInputValue, SessionOutputs};
use ort::value::{Outlet, ValueType};
use sluice_protocol::{NamedTensor, Tensor, TensorSpec};

use crate::provider::CPU;
use crate::{Engine, EngineError, Provider, Terminate, library, value};

/// Where the library looks for weights that a graph has outside of itself.
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";
/// A folder that cannot be: a graph opened from memory would otherwise read files of the folder that
/// the process runs in, and what is run would not be what was checked.
const NOWHERE: &str = "/dev/null/no-weights-outside-of-the-graph";

/// The loaded library. It is loaded once a process and stays; cloning is cheap.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    library: PathBuf,
}

/// ONNX Runtime can be loaded only once, so later callers get what the first one loaded.
static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// Loads the library `named`, or else the one found (see the crate's `library` module).
    /// When the process has one loaded already, that one is returned.
    pub fn load(named: Option<&Path>) -> Result<Self, EngineError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let library = library::find(named)?;
        let unusable = |reason: String| EngineError::LibraryUnusable {
            path: library.clone(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let environment = ort::init_from(&library)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("sluice")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        tracing::info!(library = %library.display(), build = ort::info(), "loaded ONNX Runtime");
        let runtime = Self { environment, library };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The file that was loaded.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Opens a graph on the CPU. `threads` is how many threads one run may use; with more
    /// than one, idle threads sleep instead of spinning.
    pub fn open(&self, graph: &[u8], threads: usize) -> Result<OnnxEngine, EngineError> {
        self.open_on(&[], graph, threads)
    }

    /// The same on `providers`, the first of which gets what it can run. One that cannot start is
    /// passed over where there are others behind it.
    pub fn open_on(
        &self,
        providers: &[Provider],
        graph: &[u8],
        threads: usize,
    ) -> Result<OnnxEngine, EngineError> {
        let (session, providers) = self.session(providers, graph, threads)?;
        let specs = |kind, outlets: &[Outlet]| {
            let each =
                outlets.iter().map(|outlet| tensor_spec(kind, outlet.name(), outlet.dtype()));
            each.collect::<Result<Vec<_>, _>>()
        };
        let inputs = specs("input", session.inputs())?;
        let outputs = specs("output", session.outputs())?;
        // Nobody has to bring these, so one that cannot be brought is no reason to refuse a graph.
        let replaceable = session.overridable_initializers();
        let optional = replaceable.iter().map(|own| tensor_spec("input", own.name(), own.dtype()));
        let optional = optional.filter_map(Result::ok).collect();
        let options = RunOptions::new().map_err(|error| open_error(&error))?;
        let terminator = Terminator(Arc::new(options));
        Ok(OnnxEngine { session, terminator, inputs, optional, outputs, providers })
    }

    /// A session on the first of the providers that start, and their names.
    fn session(
        &self,
        providers: &[Provider],
        graph: &[u8],
        threads: usize,
    ) -> Result<(Session, Vec<String>), EngineError> {
        let mut left: Vec<_> = providers.iter().collect();
        loop {
            let (failed, error) = match self.try_session(&left, graph, threads) {
                Ok(session) => {
                    let names: Vec<_> =
                        left.iter().map(|provider| provider.name().to_owned()).collect();
                    return Ok((
                        session,
                        if names.is_empty() { vec![CPU.to_owned()] } else { names },
                    ));
                }
                Err(failed) => failed,
            };
            // It may be the graph's fault, too: then the last one says so.
            let Some(place) = failed.or_else(|| left.iter().position(|one| one.name() != CPU))
            else {
                return Err(open_error(&error));
            };
            let provider = left[place];
            let (name, reason) = (provider.name(), one_line(&error));
            if place + 1 == left.len() {
                let way_out = "give an ONNX Runtime that has it by --onnxruntime FILE, or name another provider after it, cpu for one";
                let reason = format!("cannot start: {reason}; {way_out}");
                return Err(EngineError::Provider { name: name.to_owned(), reason });
            }
            tracing::warn!(
                provider = name,
                reason,
                "an execution provider cannot start; the next one is tried"
            );
            left.remove(place);
        }
    }

    /// A session on all of the providers, or which of them cannot start and why; none where it is only
    /// known that the session does not.
    fn try_session(
        &self,
        providers: &[&Provider],
        graph: &[u8],
        threads: usize,
    ) -> Result<Session, (Option<usize>, ort::Error)> {
        let mut builder = self.builder(threads).map_err(|error| (None, error))?;
        for (place, provider) in providers.iter().enumerate() {
            if let Some(dispatch) = provider.dispatch() {
                let registered = builder.with_execution_providers([dispatch]);
                builder = registered.map_err(|error| (Some(place), error.into()))?;
            }
        }
        builder.commit_from_memory(graph).map_err(|error| (None, error))
    }

    fn builder(&self, threads: usize) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            // Every one that the library has; newer ones have more levels below this.
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_config_entry(WEIGHTS_FOLDER, NOWHERE)?
            .with_intra_threads(threads.max(1))?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?;
        Ok(builder)
    }
}

impl std::fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxRuntime").field("library", &self.library).finish_non_exhaustive()
    }
}

/// A graph in ONNX Runtime.
#[derive(Debug)]
pub struct OnnxEngine {
    session: Session,
    /// What every run has with it.
    terminator: Terminator,
    inputs: Vec<TensorSpec>,
    /// Initializers that are graph inputs too.
    optional: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    providers: Vec<String>,
}

impl OnnxEngine {
    /// The execution providers that it really runs on, in the order of their preference.
    pub fn providers(&self) -> &[String] {
        &self.providers
    }

    /// The inputs as values, checked to be as many as the graph has.
    fn values<'t>(&self, inputs: &'t [Tensor]) -> Result<Vec<SessionInputValue<'t>>, EngineError> {
        if inputs.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), inputs.len());
            return Err(EngineError::Run(format!("{expected} inputs expected, got {found}")));
        }
        let named = inputs.iter().zip(&self.inputs);
        named.map(|(tensor, spec)| value::borrow(tensor, &spec.name)).collect()
    }
}

impl Engine for OnnxEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn optional_inputs(&self) -> &[TensorSpec] {
        &self.optional
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(Arc::new(self.terminator.clone()))
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.run_with(inputs, &[])
    }

    fn run_with(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<Vec<Tensor>, EngineError> {
        self.run_timed(inputs, optional).map(|(outputs, _)| outputs)
    }

    fn run_timed(
        &mut self,
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Result<(Vec<Tensor>, Instant), EngineError> {
        if optional.is_empty() {
            let values = self.values(inputs)?;
            let answers = self.session.run_with_options(values.as_slice(), &*self.terminator.0);
            let answers = answers.map_err(|error| run_error(&error))?;
            let ran = Instant::now();
            return Ok((copy_outputs(&self.outputs, &answers)?, ran));
        }
        let required = self.values(inputs)?.into_iter().zip(&self.inputs);
        let mut values: Vec<_> =
            required.map(|(value, spec)| (spec.name.as_str(), value)).collect();
        for NamedTensor { name, tensor } in optional {
            values.push((name, value::borrow(tensor, name)?));
        }
        let answers = self.session.run_with_options(values, &*self.terminator.0);
        let answers = answers.map_err(|error| run_error(&error))?;
        let ran = Instant::now();
        Ok((copy_outputs(&self.outputs, &answers)?, ran))
    }
}

/// A run's options, which carry the word to end.
#[derive(Clone)]
struct Terminator(Arc<RunOptions>);

impl std::fmt::Debug for Terminator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminator").finish_non_exhaustive()
    }
}

impl Terminate for Terminator {
    fn terminate(&self) {
        if let Err(error) = self.0.terminate() {
            tracing::error!(error = one_line(&error), "a run cannot be terminated");
        }
    }

    fn resume(&self) {
        if let Err(error) = self.0.unterminate() {
            tracing::error!(error = one_line(&error), "an engine's runs stay terminated");
        }
    }
}

/// Copies of all outputs, in the graph's order.
fn copy_outputs(
    specs: &[TensorSpec],
    answers: &SessionOutputs<'_>,
) -> Result<Vec<Tensor>, EngineError> {
    let copy = |spec: &TensorSpec| {
        let answer = answers.get(&spec.name);
        let answer =
            answer.ok_or_else(|| EngineError::Run(format!("no output {:?}", spec.name)))?;
        value::copy(answer, &spec.name)
    };
    specs.iter().map(copy).collect()
}

fn tensor_spec(
    kind: &'static str,
    name: &str,
    value: &ValueType,
) -> Result<TensorSpec, EngineError> {
    let name = name.to_owned();
    let unsupported =
        |found: String| EngineError::UnsupportedValue { kind, name: name.clone(), found };
    let (Some(element), Some(shape)) = (value.tensor_type(), value.tensor_shape()) else {
        return Err(unsupported("no tensor".to_owned()));
    };
    let datatype =
        value::datatype(element).ok_or_else(|| unsupported(format!("a tensor of {element}")))?;
    Ok(TensorSpec { name, datatype, shape: shape.iter().copied().collect() })
}

/// What is missing may be weights that nobody looks for.
fn open_error(error: &ort::Error) -> EngineError {
    let message = one_line(error);
    if message.contains(NOWHERE) || message.contains("External data path") {
        let reason = "it keeps weights in files beside it, which are not read; save it with all weights inside (docs/models.md)";
        return EngineError::Graph(reason.to_owned());
    }
    EngineError::Graph(message)
}

/// How ONNX Runtime words that there is no memory, for which it has no code either: its arena's
/// message, and that of C++ where the arena was not asked.
const OUT_OF_MEMORY: [&str; 2] = ["Failed to allocate memory", "bad_alloc"];

/// How it words that it was told to end, which has no code of its own.
const TERMINATED: &str = "terminate flag being set";

/// Nearly all that fails in a graph fails by the values or shapes that it was given: an index
/// outside a table, a text that is no number, dimensions that do not fit each other. ONNX Runtime
/// has no code for that; the nodes say runtime exception, not implemented, or nothing in
/// particular. By themselves fail what runs the nodes, and a machine without the memory that a run
/// needs: the same inputs may do at another moment.
fn run_error(error: &ort::Error) -> EngineError {
    use ort::ErrorCode::{DeviceReset, EngineError as Provider, ExecutionProviderFailure};
    let message = one_line(error);
    match error.code() {
        ExecutionProviderFailure | DeviceReset | Provider => EngineError::Run(message),
        _ if message.contains(TERMINATED) => EngineError::Terminated,
        _ if OUT_OF_MEMORY.iter().any(|text| message.contains(text)) => EngineError::Run(message),
        _ => EngineError::Refused(message),
    }
}

/// ONNX Runtime's messages span lines; ours do not.
pub(crate) fn one_line(error: &ort::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
