//! What a request can be told, and what can stop a gateway from starting.

use std::fmt::{self, Write};
use std::time::Duration;

use sluice_engine::EngineError;
use sluice_features::FeatureError;
use sluice_protocol::{Code, ModelName, ModelVersion, ShapeError};

use crate::access::{Protocol, Refusal};
use crate::control::exposure::ControlGroup;
use crate::dialect::OverloadStatus;

/// The longest error text that a caller gets, in characters.
const MESSAGE_LENGTH: usize = 800;
/// As much of a caller's text as an error repeats, in characters.
const CLIP_LENGTH: usize = 100;

/// What a refused caller is told of trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryHint {
    /// When there may be room.
    pub after: Duration,
    /// Whether a retry that nobody asked for is welcome.
    pub welcome: bool,
}

/// A request that is not answered with a prediction. Its text goes to the caller.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No such model, or none of its versions is loaded.
    #[error("Request for unknown model: '{}' {}", model.escape_debug(), reason.as_deref().unwrap_or("is not found"))]
    UnknownModel {
        /// The name asked for.
        model: String,
        /// Why a known model has no version to answer with.
        reason: Option<String>,
    },
    /// The model is there, that version is not.
    #[error(
        "Request for unknown model: '{model}' version {} is not found; available: {}",
        version.escape_debug(),
        available.iter().map(ModelVersion::to_string).collect::<Vec<_>>().join(", ")
    )]
    UnknownVersion {
        /// The model.
        model: ModelName,
        /// The version asked for.
        version: String,
        /// The versions that are loaded.
        available: Vec<ModelVersion>,
    },
    /// The version is there, but does not answer at this moment.
    #[error(
        "Request for unknown model: '{model}' version {version} is not at ready state: {reason}"
    )]
    VersionNotReady {
        /// The model.
        model: ModelName,
        /// The version asked for.
        version: ModelVersion,
        /// What it is doing instead, or why it was refused.
        reason: String,
    },
    /// No such route.
    #[error("Not Found: {0}")]
    NoRoute(String),
    /// The route exists for other methods.
    #[error("method {method} is not allowed for {path}; use {allowed}")]
    MethodNotAllowed {
        /// The method used.
        method: String,
        /// The path.
        path: String,
        /// The method to use.
        allowed: &'static str,
    },
    /// The request cannot be understood or does not fit the model.
    #[error("{0}")]
    Invalid(String),
    /// An input that does not fit.
    #[error("input {name:?}: {reason}")]
    Input {
        /// The input's or field's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body or message exceeds the limit.
    #[error("request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Reading the request takes more memory than there is for it.
    #[error(
        "request takes more than {room} bytes of memory to read, twice what its body may have; send tensors in binary form, or start the gateway with a larger --max-body"
    )]
    NoRoom {
        /// How much there is, in bytes.
        room: usize,
    },
    /// A gRPC message exceeds the limit; in gRPC's own words.
    #[error("Received message larger than max ({length} vs. {limit}); the limit is: {limit} bytes")]
    MessageTooLarge {
        /// The length of the message in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A body in very many very small chunks.
    #[error("request body comes in more than {most} chunks of a few bytes each")]
    SmallChunks {
        /// The most that are taken.
        most: usize,
    },
    /// A body encoding that is not understood.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// The queue's predicted waiting time is past its bound.
    #[error("model {model} is overloaded: {waiting:?} of work is waiting; try again later")]
    Overloaded {
        /// The model.
        model: ModelName,
        /// How long the work already waiting is predicted to take.
        waiting: Duration,
        /// The status that it is told with.
        status: OverloadStatus,
        /// Whether to try again, and when.
        retry: RetryHint,
    },
    /// Too much of what a connection's client was answered waits for it.
    #[error(
        "more than {most} bytes of answers wait on this connection for its client; read them before asking for more, or use several connections"
    )]
    AnswersUntaken {
        /// How much may wait, in bytes.
        most: usize,
    },
    /// The tenant has as many requests under way as it may.
    #[error(
        "the tenant of this request has {most} under way already, as many as it may have; try again later"
    )]
    TenantFull {
        /// How many may be under way.
        most: u32,
    },
    /// As many requests wait as the model's queue policy lets.
    #[error("Exceeds maximum queue size: {most} requests of model {model} wait already")]
    QueueFull {
        /// The model.
        model: ModelName,
        /// How many may wait.
        most: usize,
    },
    /// The request waited longer than it or the model's queue policy lets.
    #[error("Request timeout expired: model {model} did not begin with it within {waited:?}")]
    QueueTimeout {
        /// The model.
        model: ModelName,
        /// How long it waited.
        waited: Duration,
    },
    /// The answer did not come in time.
    #[error("deadline of {0:?} exceeded")]
    DeadlineExceeded(Duration),
    /// The request's body did not arrive in time.
    #[error("request body did not arrive within {0:?}")]
    BodyTimeout(Duration),
    /// A thing, other than a model or a route, that is not there.
    #[error("{0}")]
    NotFound(String),
    /// A thing that is to be made and is there already.
    #[error("{0}")]
    AlreadyExists(String),
    /// Draining or not started.
    #[error("server is {0}")]
    Unavailable(&'static str),
    /// Understood, and not done here.
    #[error("{0}")]
    Unsupported(String),
    /// A call for operators, on a port that has none.
    #[error(
        "{0} is not answered on this port; call the administration port (--admin), or start the gateway with --serve-control {0}{also}",
        also = flag_beside(*.0)
    )]
    NotExposed(ControlGroup),
    /// Nobody may load and unload models by calls.
    #[error(
        "explicit model load / unload is not allowed if polling is enabled; start the gateway with --model-repository DIR --model-control explicit"
    )]
    NoModelControl,
    /// As many loads and unloads are waiting as may.
    #[error("{0}; try again later")]
    TooManyLoads(String),
    /// A model that is to be loaded and is not there.
    #[error("failed to load '{model}', failed to poll from model repository: {reason}")]
    NothingToLoad {
        /// The name asked for.
        model: String,
        /// What was looked for in vain.
        reason: String,
    },
    /// A load that was asked for and refused. What was served before still is.
    #[error("load failed for model '{model}': {reason}")]
    LoadRefused {
        /// The model.
        model: ModelName,
        /// Which version was refused, and why.
        reason: String,
    },
    /// No bearer token, or one that is not known.
    #[error("{}", if *.unknown { "the bearer token is not one that is accepted here" } else { "a bearer token is needed: send the header Authorization: Bearer TOKEN" })]
    Unauthenticated {
        /// There is a token.
        unknown: bool,
    },
    /// Whoever asks may not.
    #[error("{0}")]
    PermissionDenied(String),
    /// Features could not be looked up or computed.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The graph refused the request's inputs, or failed.
    #[error("model {model} version {version}: {message}")]
    Engine {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
        /// What the engine says.
        message: String,
        /// Whose fault it is.
        code: Code,
    },
}

impl GatewayError {
    /// The code that callers act on.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::NothingToLoad { .. }
            | Self::NoRoute(_)
            | Self::NotFound(_) => Code::NotFound,
            Self::AlreadyExists(_) => Code::AlreadyExists,
            Self::MethodNotAllowed { .. }
            | Self::Invalid(_)
            | Self::Input { .. }
            | Self::LoadRefused { .. } => Code::InvalidArgument,
            Self::TooLarge { .. }
            | Self::NoRoom { .. }
            | Self::MessageTooLarge { .. }
            | Self::SmallChunks { .. } => Code::TooLarge,
            Self::Overloaded { status: OverloadStatus::Exhausted, .. }
            | Self::AnswersUntaken { .. }
            | Self::TenantFull { .. }
            | Self::TooManyLoads(_) => Code::Overloaded,
            Self::Overloaded { status: OverloadStatus::Unavailable, .. }
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. } => Code::Unavailable,
            Self::DeadlineExceeded(_) | Self::BodyTimeout(_) => Code::DeadlineExceeded,
            Self::Unavailable(_) | Self::VersionNotReady { .. } | Self::NoModelControl => {
                Code::Unavailable
            }
            Self::UnsupportedEncoding(_) | Self::Unsupported(_) => Code::Unimplemented,
            Self::Unauthenticated { .. } => Code::Unauthenticated,
            Self::NotExposed(_) | Self::PermissionDenied(_) => Code::PermissionDenied,
            // Features that are not there yet are not the caller's fault.
            Self::Features(error) if error.code() == Code::FailedPrecondition => Code::Unavailable,
            Self::Features(error) => error.code(),
            Self::Engine { code, .. } => *code,
        }
    }

    /// The text for the caller: short, whatever names and shapes the request brought, since over
    /// gRPC it travels in a header.
    pub(crate) fn message(&self) -> String {
        let mut clipped = Clipped { text: String::new(), left: MESSAGE_LENGTH };
        if write!(clipped, "{self}").is_err() {
            clipped.text.push('…');
        }
        clipped.text
    }

    /// Writes down what an operator should know: faults of ours as errors. A caller's mistake is
    /// told to the caller and counted; one that only a run found is kept for whoever looks for it.
    pub(crate) fn log(&self) {
        match self.code() {
            Code::Internal => tracing::error!(error = %self, "request failed"),
            _ if matches!(self, Self::Engine { .. }) => {
                tracing::debug!(error = %self, "request refused by the graph");
            }
            _ => {}
        }
    }

    /// An input that does not fit, by name.
    pub(crate) fn input(name: &str, reason: impl Into<String>) -> Self {
        Self::Input { name: clip(name).to_owned(), reason: reason.into() }
    }

    /// An output that cannot be answered as it is wanted, by name.
    pub(crate) fn output(name: &str, reason: impl fmt::Display) -> Self {
        Self::Invalid(format!("output {:?}: {reason}", clip(name)))
    }

    /// An input whose shape and elements disagree.
    pub(crate) fn shape(name: &str, error: &ShapeError) -> Self {
        Self::input(name, error.to_string())
    }
}

/// What else a group of calls asks for where it is not turned on.
const fn flag_beside(group: ControlGroup) -> &'static str {
    match group {
        ControlGroup::ModelRepository => " and --model-control explicit",
        ControlGroup::SharedMemory => " and --shared-memory",
        ControlGroup::Logging | ControlGroup::Trace => "",
    }
}

/// What a caller sent, cut to a length fit for a message.
pub(crate) fn clip(text: &str) -> &str {
    text.char_indices().nth(CLIP_LENGTH).map_or(text, |(end, _)| &text[..end])
}

/// A text that grows to so many characters. What is past them is an error, so that whoever writes
/// a long one stops there.
struct Clipped {
    text: String,
    left: usize,
}

impl Write for Clipped {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        match more.char_indices().nth(self.left) {
            Some((end, _)) => {
                self.text.push_str(&more[..end]);
                self.left = 0;
                Err(fmt::Error)
            }
            None => {
                self.text.push_str(more);
                self.left -= more.chars().count();
                Ok(())
            }
        }
    }
}

impl From<Refusal<'_>> for GatewayError {
    fn from(refusal: Refusal<'_>) -> Self {
        match refusal {
            Refusal::NoToken => Self::Unauthenticated { unknown: false },
            Refusal::UnknownToken => Self::Unauthenticated { unknown: true },
            Refusal::NotPermitted => Self::PermissionDenied(
                "the bearer token is good for inference only; this takes an admin token".to_owned(),
            ),
            Refusal::Restricted(restriction) => Self::PermissionDenied(format!(
                "This API is restricted, expecting header '{}'",
                restriction.header(Protocol::Http)
            )),
        }
    }
}

/// A model version that was not put into service, and why. The version that served before it
/// goes on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of the version cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// The package contradicts itself, or is for something else.
    #[error("{0}")]
    Package(String),
    /// The graph does not open, or cannot be served.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model's features are not served here, or other ones are.
    #[error("{0}")]
    Features(String),
    /// The graph answers otherwise than the learner did.
    #[error("parity check failed: {0}")]
    Parity(String),
    /// The model's configuration contradicts itself or the graph, or asks for what is not done.
    #[error("model configuration: {0}")]
    Configuration(String),
    /// `config.pbtxt` cannot be understood.
    #[error("config.pbtxt: {0}")]
    ConfigFile(String),
    /// `deployment.toml` is wrong.
    #[error("deployment.toml: {0}")]
    Settings(String),
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Everything that is wrong with the settings, a line each.
    #[error("settings cannot be used:\n  {}", .0.join("\n  "))]
    Settings(Vec<String>),
    /// ONNX Runtime cannot be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Feature definitions or the online store cannot be opened.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {what}")]
    Listen {
        /// What it is for.
        what: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file, folder or thread that cannot be had.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::{GatewayError, clip};

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let message = |text: &str| GatewayError::Invalid(text.to_owned()).message();
        for (text, expected) in [
            ("é".repeat(799), "é".repeat(799)),
            ("é".repeat(800), "é".repeat(800)),
            ("é".repeat(801), format!("{}…", "é".repeat(800))),
            (String::new(), String::new()),
        ] {
            assert_eq!(message(&text), expected);
        }
        let unknown = |model: String| GatewayError::UnknownModel { model, reason: None };
        let message = unknown("\u{7f}".repeat(1000)).message();
        assert_eq!((message.chars().count(), message.ends_with('…')), (801, true), "{message}");
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(clip("a name"), "a name");
        assert_eq!(clip(&"é".repeat(101)), "é".repeat(100));
    }
}
