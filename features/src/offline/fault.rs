//! Our errors on their way through DataFusion, which carries them as foreign ones.

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::definitions::Source;
use crate::error::FeatureError;
use crate::expression::EvaluateError;

/// What our functions report from inside a running plan.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    #[error("source {source_name} ({path}): {reason}")]
    Source { source_name: String, path: String, reason: String },
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

impl Fault {
    pub(super) fn of(source: &Source, reason: impl Into<String>) -> Self {
        Self::Source {
            source_name: source.name.clone(),
            path: source.path.display().to_string(),
            reason: reason.into(),
        }
    }
}

/// What the engine says went wrong, without the names of the layers that it came through.
pub(super) fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::CsvError(text) => text.clone(),
            other => other.to_string(),
        },
        DataFusionError::ParquetError(error) => error.to_string(),
        other => other.strip_backtrace(),
    }
}

impl From<Fault> for DataFusionError {
    fn from(fault: Fault) -> Self {
        Self::External(Box::new(fault))
    }
}

impl From<Fault> for FeatureError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Source { source_name, path, reason } => {
                Self::Source { source_name, path, reason }
            }
            Fault::Evaluate(error) => Self::Evaluate(error),
        }
    }
}

impl From<DataFusionError> for FeatureError {
    fn from(error: DataFusionError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if let Some(fault) = inner.downcast_ref::<Fault>() {
                return fault.clone().into();
            }
            if let Some(DataFusionError::External(boxed)) = inner.downcast_ref()
                && let Some(fault) = boxed.downcast_ref::<Fault>()
            {
                return fault.clone().into();
            }
            cause = inner.source();
        }
        Self::Offline(reason(&error))
    }
}
