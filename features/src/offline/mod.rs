//! The offline half: feature rows and training frames out of files, planned and run by
//! DataFusion. Every value is computed by the crate's own expressions, wrapped as DataFusion
//! functions, so that it equals what the online half computes.

mod array;
mod as_of;
mod compute;
mod fault;
mod frame;
mod function;
mod materialize;
mod session;
mod source;
#[cfg(test)]
mod tests;
mod window;

pub use frame::{Frame, FrameColumn, FrameRequest, training_frame};
pub use materialize::materialize;

use crate::definitions::Definitions;
use crate::error::FeatureError;

/// Checks that every source's file is there and has the declared columns, without reading
/// its rows. All that is wrong is reported at once.
pub async fn check_sources(definitions: &Definitions) -> Result<(), FeatureError> {
    let session = session::new();
    let mut complaints = Vec::new();
    for source in definitions.sources() {
        match source::check(&session, source).await {
            Ok(()) => {}
            Err(FeatureError::Source { source_name, path, reason }) => {
                complaints.push(crate::Complaint {
                    file: path,
                    name: format!("source {source_name}"),
                    reason,
                });
            }
            Err(other) => return Err(other),
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    Err(FeatureError::Definitions(crate::Complaints(complaints)))
}
