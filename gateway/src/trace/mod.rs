//! Traces of single requests, for OpenTelemetry: which are taken ([`sampler`]), what is noted of
//! them on their way ([`recording`]), and what becomes of that ([`spans`], [`export`]).
//!
//! While nothing is traced, a request costs one look at a flag. One that is traced notes times
//! and names and hands them on at its end; what they come to is worked out elsewhere, and dropped
//! when too much waits there.

mod context;
mod export;
mod recording;
mod sampler;
mod settings;
mod spans;
mod tracer;

pub(crate) use context::Context;
pub(crate) use export::SpanCounts;
pub(crate) use recording::{Arrival, Call, End, Trace};
pub(crate) use sampler::{Levels, Values};
pub(crate) use settings::TraceOptions;
pub use settings::{TraceLevel, TraceSettings};
pub(crate) use tracer::{Change, Changes, Tracer};
