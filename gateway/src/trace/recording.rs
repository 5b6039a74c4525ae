//! What is noted of one request, by those that it passes through.

use std::time::{Duration, Instant, SystemTime};

use sluice_protocol::{
    Code, Datatype, InferRequest, ModelName, ModelVersion, NamedTensor, Parameter, Parameters,
};

use super::context::Context;
use super::export::Sink;
use super::sampler::Levels;
use crate::deployment::Deployment;
use crate::executor::Times;
use crate::inputs::Freshness;

/// The longest name that is kept, in characters: of a request, a model or a tensor.
const NAME_LENGTH: usize = 128;
/// As many tensors and dimensions as are kept. Few requests that can be answered have more.
const MOST_TENSORS: usize = 64;
const MOST_DIMENSIONS: usize = 16;
/// As many parameters of a request as are kept, and the longest of their texts, in characters.
const MOST_PARAMETERS: usize = 64;
const TEXT_LENGTH: usize = 256;
/// The longest path that is kept, in characters.
const PATH_LENGTH: usize = 512;

/// When a request came, noted while requests are traced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival(pub(super) Instant);

/// How a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Http {
        /// The path with names for what differs from call to call.
        route: &'static str,
        path: String,
    },
    Grpc {
        /// The method, with its service.
        method: &'static str,
    },
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status, and why, if not as was asked.
    Http {
        status: u16,
        error: Option<(Code, String)>,
    },
    Grpc {
        status: tonic::Code,
        error: Option<(Code, String)>,
    },
    /// Its caller left.
    Cancelled,
}

/// A part of a request's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its bytes come in.
    Receive,
    Decode,
    /// Its features are looked up.
    LookUp(Freshness),
    /// Its answer is looked for among those that are known.
    Cache {
        hit: bool,
    },
    Queue,
    /// The batch that it runs in, with all rows.
    ComputeInput,
    ComputeInfer,
    ComputeOutput,
    Encode,
}

/// A stage, and when it was.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) stage: Stage,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// Whether the request ended in it, without what was asked for.
    pub(super) failed: bool,
}

/// A tensor without its elements.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<i64>,
}

/// All that is noted of one request.
#[derive(Debug)]
pub(crate) struct Recording {
    sink: Sink,
    pub(super) number: u64,
    pub(super) parent: Option<Context>,
    pub(super) levels: Levels,
    pub(super) call: Call,
    pub(super) begun: Instant,
    /// The wall clock at [`Self::begun`].
    pub(super) begun_at: SystemTime,
    /// The model asked for, and the version that answers.
    pub(super) routed: Option<(ModelName, ModelVersion)>,
    pub(super) asked: String,
    pub(super) id: String,
    /// By name, those of the request and those that its headers have become.
    pub(super) parameters: Vec<(String, Parameter)>,
    pub(super) steps: Vec<Step>,
    pub(super) inputs: Vec<Described>,
    pub(super) outputs: Vec<Described>,
    pub(super) ended: Option<(Instant, End)>,
    /// The stage that is going on.
    open: Option<(Stage, Instant)>,
    /// When the last stage ended.
    mark: Instant,
}

/// One request's trace, if it is traced. Its end is noted at the latest when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Trace(Option<Box<Recording>>);

impl Trace {
    /// Of a request that is not traced.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Of one whose bytes came from `arrival` until now.
    pub(super) fn begin(
        sink: Sink,
        number: u64,
        levels: Levels,
        Arrival(begun): Arrival,
        model: &str,
        call: Call,
        parent: Option<Context>,
    ) -> Self {
        let now = Instant::now();
        let begun_at = SystemTime::now().checked_sub(now.saturating_duration_since(begun));
        let mut recording = Recording {
            sink,
            number,
            parent,
            levels,
            call: call.clipped(),
            begun,
            begun_at: begun_at.unwrap_or(SystemTime::UNIX_EPOCH),
            routed: None,
            asked: model.chars().take(NAME_LENGTH).collect(),
            id: String::new(),
            parameters: Vec::new(),
            steps: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            ended: None,
            open: Some((Stage::Decode, now)),
            mark: now,
        };
        recording.push(Stage::Receive, begun, now);
        Self(Some(Box::new(recording)))
    }

    /// Which version answers.
    pub(crate) fn routed(&mut self, deployment: &Deployment) {
        let Some(recording) = &mut self.0 else { return };
        recording.routed = Some((deployment.model.clone(), deployment.version));
    }

    /// It was understood.
    pub(crate) fn decoded(&mut self, request: &InferRequest) {
        let Some(recording) = &mut self.0 else { return };
        recording.close(false);
        recording.id = request.id.chars().take(NAME_LENGTH).collect();
        recording.parameters = clipped(&request.parameters);
        recording.inputs = recording.described(&request.inputs);
    }

    /// Its inputs are there. Features were looked up for them if there is something to say about
    /// these.
    pub(crate) fn prepared(&mut self, freshness: Option<&Freshness>) {
        let Some(recording) = &mut self.0 else { return };
        let now = Instant::now();
        if let Some(freshness) = freshness {
            recording.push(Stage::LookUp(freshness.clone()), recording.mark, now);
        }
        recording.mark = now;
    }

    /// Its answer was looked for among those that are known.
    pub(crate) fn looked_for(&mut self, hit: bool) {
        let Some(recording) = &mut self.0 else { return };
        let now = Instant::now();
        recording.push(Stage::Cache { hit }, recording.mark, now);
        recording.mark = now;
    }

    /// It waits since `submitted`.
    pub(crate) fn queued(&mut self, submitted: Instant) {
        let Some(recording) = &mut self.0 else { return };
        recording.open = Some((Stage::Queue, submitted));
    }

    /// Its rows were run, and that took so long.
    pub(crate) fn ran(&mut self, times: &Times) {
        let Some(recording) = &mut self.0 else { return };
        let Some((_, mut begun)) = recording.open.take() else { return };
        for (stage, took) in [
            (Stage::Queue, times.queue),
            (Stage::ComputeInput, times.input),
            (Stage::ComputeInfer, times.infer),
            (Stage::ComputeOutput, times.output),
        ] {
            let ended = begun.checked_add(Duration::from_nanos(took.0)).unwrap_or(begun);
            recording.push(stage, begun, ended);
            begun = ended;
        }
    }

    /// The answer is there, and is written next.
    pub(crate) fn answered(&mut self, outputs: &[NamedTensor]) {
        let Some(recording) = &mut self.0 else { return };
        recording.outputs = recording.described(outputs);
        recording.open = Some((Stage::Encode, Instant::now()));
    }

    /// It is over. What `end` makes is only made when that is noted.
    pub(crate) fn end(mut self, end: impl FnOnce() -> End) {
        if let Some(recording) = &mut self.0 {
            recording.end(end());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(mut recording) = self.0.take() else { return };
        if recording.ended.is_none() {
            recording.end(End::Cancelled);
        }
        let sink = recording.sink.clone();
        sink.offer(*recording);
    }
}

impl Recording {
    /// How many spans it comes to.
    pub(super) fn spans(&self) -> usize {
        let computed = self.steps.iter().any(|step| step.stage == Stage::ComputeInfer);
        1 + self.steps.len() + usize::from(computed)
    }

    /// The wall clock at `instant`, reckoned from when the request came, so that a clock that is
    /// set meanwhile tears nothing apart.
    pub(super) fn at(&self, instant: Instant) -> SystemTime {
        let since = instant.saturating_duration_since(self.begun);
        self.begun_at.checked_add(since).unwrap_or(self.begun_at)
    }

    fn end(&mut self, end: End) {
        self.close(end.error().is_some());
        self.ended = Some((Instant::now(), end));
    }

    /// Ends the stage that is going on, if there is one.
    fn close(&mut self, failed: bool) {
        let now = Instant::now();
        if let Some((stage, begun)) = self.open.take() {
            self.push(stage, begun, now);
            if let Some(last) = self.steps.last_mut() {
                last.failed = failed;
            }
        }
        self.mark = now;
    }

    fn push(&mut self, stage: Stage, begun: Instant, ended: Instant) {
        if self.levels.timestamps {
            self.steps.push(Step { stage, begun, ended, failed: false });
        }
    }

    fn described(&self, tensors: &[NamedTensor]) -> Vec<Described> {
        if !self.levels.tensors {
            return Vec::new();
        }
        let tensors = tensors.iter().take(MOST_TENSORS);
        let described = tensors.map(|NamedTensor { name, tensor }| Described {
            name: name.chars().take(NAME_LENGTH).collect(),
            datatype: tensor.datatype(),
            shape: tensor.shape().iter().take(MOST_DIMENSIONS).copied().collect(),
        });
        described.collect()
    }
}

/// Parameters, as far as they are kept.
fn clipped(parameters: &Parameters) -> Vec<(String, Parameter)> {
    let kept = parameters.iter().take(MOST_PARAMETERS).map(|(name, value)| {
        let value = match value {
            Parameter::String(text) => Parameter::String(text.chars().take(TEXT_LENGTH).collect()),
            other => other.clone(),
        };
        (name.chars().take(NAME_LENGTH).collect(), value)
    });
    kept.collect()
}

impl End {
    /// Why there is no answer, if there is none.
    pub(super) const fn error(&self) -> Option<Code> {
        match self {
            Self::Http { error: Some((code, _)), .. }
            | Self::Grpc { error: Some((code, _)), .. } => Some(*code),
            Self::Cancelled => Some(Code::Cancelled),
            Self::Http { error: None, .. } | Self::Grpc { error: None, .. } => None,
        }
    }
}

impl Call {
    fn clipped(self) -> Self {
        match self {
            Self::Http { route, path } if path.len() > PATH_LENGTH => {
                Self::Http { route, path: path.chars().take(PATH_LENGTH).collect() }
            }
            call => call,
        }
    }
}
