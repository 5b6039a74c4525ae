//! What can go wrong with a graph or the library that runs it.

use std::path::PathBuf;

use sluice_protocol::Code;

/// A graph that cannot be opened or run, or a library that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No library at all.
    #[error(
        "ONNX Runtime's shared library was not found (looked at {}); run `make setup`, or name one with --onnxruntime FILE or SLUICE_ONNXRUNTIME",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    LibraryMissing {
        /// Where it was looked for, in order.
        looked: Vec<PathBuf>,
    },
    /// A library that does not load, or is too old.
    #[error(
        "ONNX Runtime cannot be loaded from {}: {reason}; name a library of version 1.23 or newer with --onnxruntime FILE or SLUICE_ONNXRUNTIME, or run `make setup`",
        path.display()
    )]
    LibraryUnusable {
        /// The file.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A graph that does not open.
    #[error("graph cannot be opened: {0}")]
    Graph(String),
    /// An execution provider that is not known, or cannot start.
    #[error("execution provider {name:?} {reason}")]
    Provider {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A graph with something that cannot be served.
    #[error("{kind} {name:?} is {found}, which cannot be served")]
    UnsupportedValue {
        /// "input" or "output".
        kind: &'static str,
        /// The tensor's name.
        name: String,
        /// What it is.
        found: String,
    },
    /// Input elements that ONNX Runtime cannot take.
    #[error("input {name:?}: {reason}")]
    Input {
        /// The input's name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Inputs whose values or shapes the graph cannot compute with.
    #[error("graph refuses its inputs: {0}")]
    Refused(String),
    /// A run that was broken off, since it took too long.
    #[error("run was terminated: it outlasted its bound (max_run_time)")]
    Terminated,
    /// A run that failed by no fault of its inputs: a machine out of memory, for one. Or outputs
    /// that are not those of the graph.
    #[error("run failed: {0}")]
    Run(String),
}

impl EngineError {
    /// The code that callers act on.
    pub const fn code(&self) -> Code {
        match self {
            Self::LibraryMissing { .. } | Self::LibraryUnusable { .. } | Self::Provider { .. } => {
                Code::FailedPrecondition
            }
            Self::Graph(_)
            | Self::UnsupportedValue { .. }
            | Self::Input { .. }
            | Self::Refused(_) => Code::InvalidArgument,
            Self::Terminated => Code::DeadlineExceeded,
            Self::Run(_) => Code::Internal,
        }
    }
}
