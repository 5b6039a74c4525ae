//! The crate's errors, named by what the caller can do about them.

use sluice_protocol::Code;

/// Why something in the trainer did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows or labels cannot be learned from: mend the data.
    #[error("training data: {0}")]
    Data(String),
    /// A learner parameter is out of its range.
    #[error("parameter {name}: {problem}")]
    Parameter {
        /// The parameter, as it is spelled in the pipeline file.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Training was told to stop.
    #[error("training was cancelled after {rounds} rounds")]
    Cancelled {
        /// Finished rounds.
        rounds: usize,
    },
    /// A stored booster cannot be used.
    #[error("stored booster: {0}")]
    Booster(String),
    /// ONNX Runtime cannot be loaded, or refuses a graph.
    #[error(transparent)]
    Engine(#[from] sluice_engine::EngineError),
    /// An exported graph has another form than it should.
    #[error("exported model: {0}")]
    Model(String),
    /// The exported graph does not compute what the learner computes.
    #[error(
        "parity of model and learner: row {row} ({description}): learner {expected}, model {answer}"
    )]
    Parity {
        /// The row's position among the rows that were checked.
        row: usize,
        /// How the row was made.
        description: String,
        /// The learner's prediction.
        expected: f32,
        /// The graph's.
        answer: f32,
    },
}

impl Error {
    /// The code under which the whole system reports this error.
    pub const fn code(&self) -> Code {
        match self {
            Self::Data(_) | Self::Parameter { .. } | Self::Booster(_) => Code::InvalidArgument,
            Self::Cancelled { .. } => Code::Cancelled,
            Self::Engine(error) => error.code(),
            Self::Model(_) | Self::Parity { .. } => Code::Internal,
        }
    }
}
