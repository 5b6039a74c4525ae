//! Feature views: what they are, how their values come about and how they are looked up.
//!
//! The journey: [`Definitions`] are read from TOML and checked as a whole. Offline (Cargo
//! feature `offline`) it reads the sources, computes each view's rows, gives the latest row of
//! every entity as [`ViewRows`], or joins rows to labels as of a point in time for training.
//! Online, an [`EmbeddedStore`] takes those rows, and a [`ServicePlan`] turns a request's
//! [`Fields`] and the stored rows into a model's inputs. Both halves compute every value by the
//! same expressions over the same columns, so they give the same bits.
//!
//! Meaning of time: what is looked up is an entity's features as of its last row at or before
//! the materialised day, never relative to a date in the request.

mod column;
mod definitions;
mod entity;
mod error;
mod expression;
#[cfg(test)]
mod fixtures;
#[cfg(feature = "offline")]
mod offline;
mod online;
mod plan;
mod snapshot;
mod timestamp;
mod value;

pub use column::{Column, Values};
pub use definitions::{
    Definitions, Entity, Feature, FeatureService, FeatureView, Field, Source, SourceFormat, Stale,
    ViewId,
};
pub use entity::EntityKey;
pub use error::{Complaint, Complaints, FeatureError};
pub use expression::EvaluateError;
#[cfg(feature = "offline")]
pub use offline::{Frame, FrameColumn, FrameRequest, check_sources, materialize, training_frame};
pub use online::{EmbeddedStore, Row, ViewHeader, ViewRows, WriteReport};
pub use plan::{
    DegradedView, FeatureRows, Fields, NamedValues, ServicePlan, ServiceVector, ViewVector,
};
pub use snapshot::{Change, Snapshot};
pub use timestamp::Timestamp;
pub use value::{DataType, Value};
