//! Definitions: entities, sources, feature views and feature services, read from TOML files
//! and checked as a whole. What is wrong is reported all at once.

mod file;
mod load;
mod service;
mod source;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use service::{FeatureService, Field};
pub use source::{Source, SourceFormat};
pub use view::{Feature, FeatureView, Stale, ViewId};

use crate::error::FeatureError;
use crate::value::DataType;

/// What rows are about: a store, a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The entity's name.
    pub name: String,
    /// The column that identifies one.
    pub join_key: String,
    /// The type of that column, INT64 or STRING.
    pub value_type: DataType,
}

/// All definitions of a feature store, checked.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    pub(crate) entities: BTreeMap<String, Arc<Entity>>,
    pub(crate) sources: BTreeMap<String, Arc<Source>>,
    pub(crate) views: BTreeMap<ViewId, Arc<FeatureView>>,
    pub(crate) services: BTreeMap<String, Arc<FeatureService>>,
}

impl Definitions {
    /// Reads `path`, a TOML file or a directory of them, and checks everything in it. The
    /// sources' files are not looked at. Fails with all complaints at once.
    pub fn load(path: &Path) -> Result<Self, FeatureError> {
        load::load(path)
    }

    /// The entities by name.
    pub fn entities(&self) -> impl Iterator<Item = &Entity> {
        self.entities.values().map(AsRef::as_ref)
    }

    /// The sources by name.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values().map(AsRef::as_ref)
    }

    /// The feature views by name and version.
    pub fn views(&self) -> impl Iterator<Item = &FeatureView> {
        self.views.values().map(AsRef::as_ref)
    }

    /// The feature services by name.
    pub fn services(&self) -> impl Iterator<Item = &FeatureService> {
        self.services.values().map(AsRef::as_ref)
    }

    /// The service of this name.
    pub(crate) fn service(&self, name: &str) -> Result<&Arc<FeatureService>, FeatureError> {
        self.services.get(name).ok_or_else(|| FeatureError::UnknownService {
            service: name.to_owned(),
            known: listed(self.services.keys()),
        })
    }

    /// The views that `names` (`name@version`, or a name for all its versions) mean; all
    /// without names.
    #[cfg(feature = "offline")]
    pub(crate) fn select_views(
        &self,
        names: Option<&[String]>,
    ) -> Result<Vec<&Arc<FeatureView>>, FeatureError> {
        let Some(names) = names else { return Ok(self.views.values().collect()) };
        let mut selected = BTreeMap::new();
        for name in names {
            let meant = |view: &&Arc<FeatureView>| {
                view.id.to_string() == *name || view.id.name.as_ref() == name
            };
            let before = selected.len();
            self.views.values().filter(meant).for_each(|view| {
                selected.insert(&view.id, view);
            });
            let known_before = self.views.values().any(|view| meant(&view));
            if selected.len() == before && !known_before {
                let known = listed(self.views.keys());
                return Err(FeatureError::UnknownView { view: name.clone(), known });
            }
        }
        Ok(selected.into_values().collect())
    }
}

/// Names for a message.
fn listed<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// A duration of whole microseconds, for arithmetic with timestamps.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
