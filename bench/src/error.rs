//! Why a load cannot be started, or its report not be written. What happens to single requests
//! is no error but a count in the report.

use std::path::PathBuf;

use sluice_protocol::Code;

/// Why there is no load or no report file.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An option that makes no sense.
    #[error("{0}")]
    Options(String),
    /// A target on another machine, without leave.
    #[error(
        "target {host} is not on this machine ({address}); a load test can hurt whoever it hits: pass --allow-remote if that server is yours"
    )]
    Remote {
        /// The host as the URL names it.
        host: String,
        /// The address that is not loopback.
        address: std::net::IpAddr,
    },
    /// Nobody answers at the target, or its name is unknown.
    #[error("connect to {target}: {reason}")]
    Connect {
        /// Host and port.
        target: String,
        /// What the system said.
        reason: String,
    },
    /// The server does not say what a model's inputs are.
    #[error("model {model}: {reason}")]
    Model {
        /// The model.
        model: String,
        /// What came instead.
        reason: String,
    },
    /// The system refused a thread, a timer or a runtime.
    #[error("start load generator: {0}")]
    Start(#[source] std::io::Error),
    /// An address that cannot be listened at.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A plot that cannot be drawn.
    #[error("draw: {0}")]
    Draw(String),
    /// A report file cannot be written.
    #[error("write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

impl BenchError {
    /// The error as a caller can act on it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Options(_) => Code::InvalidArgument,
            Self::Remote { .. } | Self::Listen { .. } => Code::FailedPrecondition,
            Self::Connect { .. } | Self::Model { .. } => Code::Unavailable,
            Self::Start(_) | Self::Draw(_) | Self::Write { .. } => Code::Internal,
        }
    }
}
