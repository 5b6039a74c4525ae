//! From what was noted of a request to OpenTelemetry's spans: one for the request, called as Triton
//! calls it, and below that one for each stage. Attributes are Triton's and those of
//! OpenTelemetry's conventions.

use std::time::Instant;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use sluice_protocol::{Code, Parameter};

use super::context::Context;
use super::recording::{Call, Described, End, Recording, Stage, Step};

/// The span of a whole request.
const REQUEST: &str = "InferRequest";
/// The span over those of the run.
const COMPUTE: &str = "compute";

/// Who makes spans.
#[derive(Debug)]
pub(super) struct Spans {
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
}

/// A span but for the parts that are the same in all of them.
struct Span {
    name: &'static str,
    kind: SpanKind,
    id: SpanId,
    parent: SpanId,
    begun: Instant,
    ended: Instant,
    attributes: Vec<KeyValue>,
    status: Status,
}

/// What spans are of: this process, called as `OTEL_SERVICE_NAME` says.
pub(super) fn resource() -> Resource {
    let name = Key::from_static_str("service.name");
    let found = Resource::builder().build();
    let named = found.get(&name).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let instance = uuid::Uuid::new_v4().to_string();
    let resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance),
    ]);
    if named { resource.build() } else { resource.with_service_name("sluice").build() }
}

impl Spans {
    pub(super) fn new() -> Self {
        let scope = InstrumentationScope::builder("sluice").with_version(env!("CARGO_PKG_VERSION"));
        Self { ids: RandomIdGenerator::default(), scope: scope.build() }
    }

    /// The spans of one request, its own first.
    pub(super) fn of(&self, recording: &Recording) -> Vec<SpanData> {
        let parent = recording.parent.as_ref();
        let trace = match parent {
            Some(context) => TraceId::from(context.trace),
            None => self.ids.new_trace_id(),
        };
        let state = parent.and_then(|Context { state, .. }| state.parse().ok());
        let state: TraceState = state.unwrap_or_default();
        let remote = parent.map_or(SpanId::INVALID, |context| SpanId::from(context.span));
        let root = self.ids.new_span_id();
        let compute = self.ids.new_span_id();
        let whole = request(recording, root, remote);
        let steps = recording.steps.iter().map(|step| {
            let below = if step.stage.is_computing() { compute } else { root };
            stage(step, self.ids.new_span_id(), below)
        });
        let all = std::iter::once(whole).chain(computing(recording, compute, root)).chain(steps);
        all.map(|span| SpanData {
            span_context: SpanContext::new(
                trace,
                span.id,
                TraceFlags::SAMPLED,
                false,
                state.clone(),
            ),
            parent_span_is_remote: span.id == root && parent.is_some(),
            parent_span_id: span.parent,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: recording.at(span.begun),
            end_time: recording.at(span.ended),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        })
        .collect()
    }
}

/// The span of the whole request.
fn request(recording: &Recording, id: SpanId, parent: SpanId) -> Span {
    let cancelled = (recording.begun, End::Cancelled);
    let (ended, end) = recording.ended.as_ref().unwrap_or(&cancelled);
    let mut attributes = whose(recording);
    attributes.extend(call(&recording.call));
    attributes.extend(recording.parameters.iter().map(parameter));
    let status = match end {
        End::Http { status, error } => {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(*status)));
            failure(error.as_ref(), *status >= 500, &mut attributes)
        }
        End::Grpc { status, error } => {
            attributes.push(KeyValue::new("rpc.response.status_code", grpc_name(*status)));
            failure(error.as_ref(), is_fault(*status), &mut attributes)
        }
        End::Cancelled => {
            attributes.push(KeyValue::new("error.type", Code::Cancelled.as_str()));
            Status::error("the caller left")
        }
    };
    attributes.extend(tensors("input", &recording.inputs));
    attributes.extend(tensors("output", &recording.outputs));
    Span {
        name: REQUEST,
        kind: SpanKind::Server,
        id,
        parent,
        begun: recording.begun,
        ended: *ended,
        attributes,
        status,
    }
}

/// Which model and request it is of, as Triton says it.
fn whose(recording: &Recording) -> Vec<KeyValue> {
    let model = match &recording.routed {
        Some((model, _)) => model.to_string(),
        None => recording.asked.clone(),
    };
    let mut attributes = vec![KeyValue::new("triton.model_name", model)];
    if let Some((_, version)) = recording.routed {
        attributes.push(KeyValue::new("triton.model_version", whole(version.0)));
    }
    attributes.push(KeyValue::new("triton.trace_id", whole(recording.number)));
    if !recording.id.is_empty() {
        attributes.push(KeyValue::new("triton.request_id", recording.id.clone()));
    }
    attributes
}

fn call(call: &Call) -> Vec<KeyValue> {
    match call {
        Call::Http { route, path } => vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", *route),
            KeyValue::new("url.path", path.clone()),
        ],
        Call::Grpc { method } => {
            vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", *method)]
        }
    }
}

/// A parameter of the request, under a name of its own.
fn parameter((name, value): &(String, Parameter)) -> KeyValue {
    let value = match value {
        Parameter::Bool(value) => Value::Bool(*value),
        Parameter::Int64(value) => Value::I64(*value),
        // Numbers are signed there.
        Parameter::Uint64(value) => match i64::try_from(*value) {
            Ok(value) => Value::I64(value),
            Err(_) => Value::from(value.to_string()),
        },
        Parameter::Double(value) => Value::F64(*value),
        Parameter::String(value) => Value::from(value.clone()),
    };
    KeyValue::new(format!("sluice.parameter.{name}"), value)
}

/// Notes why there is no answer. It is the span's error where the fault is this side's.
fn failure(
    error: Option<&(Code, String)>,
    is_ours: bool,
    attributes: &mut Vec<KeyValue>,
) -> Status {
    let Some((code, message)) = error else { return Status::Unset };
    attributes.push(KeyValue::new("error.type", code.as_str()));
    attributes.push(KeyValue::new("error.message", message.clone()));
    if is_ours { Status::error(message.clone()) } else { Status::Unset }
}

/// The tensors' names, datatypes and shapes, each in a list of its own.
fn tensors(which: &str, described: &[Described]) -> Vec<KeyValue> {
    if described.is_empty() {
        return Vec::new();
    }
    let list = |what: &str, text: &dyn Fn(&Described) -> String| {
        let texts = described.iter().map(|tensor| StringValue::from(text(tensor)));
        let texts = Value::Array(Array::String(texts.collect()));
        KeyValue::new(format!("sluice.{which}.{what}"), texts)
    };
    vec![
        list("names", &|tensor| tensor.name.clone()),
        list("datatypes", &|tensor| tensor.datatype.as_str().to_owned()),
        list("shapes", &|tensor| format!("{:?}", tensor.shape)),
    ]
}

/// The span over those of the run, if there was one.
fn computing(recording: &Recording, id: SpanId, parent: SpanId) -> Option<Span> {
    let mut computing = recording.steps.iter().filter(|step| step.stage.is_computing());
    let first = computing.next()?;
    let last = computing.next_back().unwrap_or(first);
    let (begun, ended) = (first.begun, last.ended);
    Some(Span::within(COMPUTE, id, parent, begun, ended))
}

/// The span of a stage.
fn stage(step: &Step, id: SpanId, parent: SpanId) -> Span {
    let mut span = Span::within(step.stage.name(), id, parent, step.begun, step.ended);
    match &step.stage {
        Stage::LookUp(freshness) => {
            if let Some(as_of) = &freshness.as_of {
                span.attributes.push(KeyValue::new("sluice.features_as_of", as_of.clone()));
            }
            if !freshness.degraded_views.is_empty() {
                let views = freshness.degraded_views.join(",");
                span.attributes.push(KeyValue::new("sluice.degraded_views", views));
            }
        }
        Stage::Cache { hit } => span.attributes.push(KeyValue::new("sluice.cache_hit", *hit)),
        _ => {}
    }
    if step.failed {
        span.status = Status::error("the request ended here, unanswered");
    }
    span
}

impl Span {
    /// A part of a request's.
    fn within(
        name: &'static str,
        id: SpanId,
        parent: SpanId,
        begun: Instant,
        ended: Instant,
    ) -> Self {
        let (kind, attributes, status) = (SpanKind::Internal, Vec::new(), Status::Unset);
        Self { name, kind, id, parent, begun, ended, attributes, status }
    }
}

impl Stage {
    const fn name(&self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::LookUp(_) => "look up",
            Self::Cache { .. } => "cache",
            Self::Queue => "queue",
            Self::ComputeInput => "compute input",
            Self::ComputeInfer => "compute infer",
            Self::ComputeOutput => "compute output",
            Self::Encode => "encode",
        }
    }

    const fn is_computing(&self) -> bool {
        matches!(self, Self::ComputeInput | Self::ComputeInfer | Self::ComputeOutput)
    }
}

/// Numbers are signed there.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Whether a gRPC status says that the fault is the server's.
const fn is_fault(status: tonic::Code) -> bool {
    use tonic::Code as Grpc;
    matches!(
        status,
        Grpc::Unknown
            | Grpc::DeadlineExceeded
            | Grpc::Unimplemented
            | Grpc::Internal
            | Grpc::Unavailable
            | Grpc::DataLoss
    )
}

/// A gRPC status as the conventions write it.
const fn grpc_name(status: tonic::Code) -> &'static str {
    use tonic::Code as Grpc;
    match status {
        Grpc::Ok => "OK",
        Grpc::Cancelled => "CANCELLED",
        Grpc::Unknown => "UNKNOWN",
        Grpc::InvalidArgument => "INVALID_ARGUMENT",
        Grpc::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Grpc::NotFound => "NOT_FOUND",
        Grpc::AlreadyExists => "ALREADY_EXISTS",
        Grpc::PermissionDenied => "PERMISSION_DENIED",
        Grpc::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Grpc::FailedPrecondition => "FAILED_PRECONDITION",
        Grpc::Aborted => "ABORTED",
        Grpc::OutOfRange => "OUT_OF_RANGE",
        Grpc::Unimplemented => "UNIMPLEMENTED",
        Grpc::Internal => "INTERNAL",
        Grpc::Unavailable => "UNAVAILABLE",
        Grpc::DataLoss => "DATA_LOSS",
        Grpc::Unauthenticated => "UNAUTHENTICATED",
    }
}
