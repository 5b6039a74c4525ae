//! The applied definitions by hash: what `features apply` compares with and records.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_protocol::{Digest, Format};

use crate::definitions::Definitions;
use crate::error::FeatureError;

/// The snapshot's name in the state directory.
const FILE: &str = "features.json";

/// The hashes of all views and services at the time they were applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    format: Format<1>,
    /// The views' definitions, by `name@version`.
    pub views: BTreeMap<String, Digest>,
    /// The services' schema hashes, by name.
    pub services: BTreeMap<String, Digest>,
}

/// What applying definitions means for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Was not there.
    New,
    /// Has another hash.
    Changed,
    /// Has the same hash.
    Unchanged,
    /// Is not there any more.
    Removed,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        })
    }
}

impl Snapshot {
    /// The snapshot of these definitions.
    pub fn of(definitions: &Definitions) -> Result<Self, FeatureError> {
        let views = definitions.views().map(|view| (view.id.to_string(), view.definition()));
        let hash = |name: &str| Ok((name.to_owned(), definitions.plan(name)?.schema_hash()));
        let services = definitions.services().map(|service| hash(&service.name));
        Ok(Self {
            format: Format::CURRENT,
            views: views.collect(),
            services: services.collect::<Result<_, FeatureError>>()?,
        })
    }

    /// The one recorded in a state directory, if there is one.
    pub fn read(state: &Path) -> Result<Option<Self>, FeatureError> {
        let path = state.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(FeatureError::Io { path, reason }),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| FeatureError::Damaged {
            what: path.display().to_string(),
            reason: error.to_string(),
        })
    }

    /// Records the snapshot in a state directory, whole or not at all.
    pub fn write(&self, state: &Path) -> Result<(), FeatureError> {
        let path = state.join(FILE);
        let temporary = state.join(format!("{FILE}.{}.tmp", std::process::id()));
        let text = serde_json::to_vec_pretty(self).expect("a snapshot holds nothing JSON cannot");
        let write = || {
            std::fs::create_dir_all(state)?;
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            std::fs::File::open(state)?.sync_all()
        };
        write().map_err(|reason| FeatureError::Io { path: path.clone(), reason })
    }

    /// What changes from `before`, view by view and service by service.
    pub fn changes_from(&self, before: Option<&Self>) -> Vec<(String, Change)> {
        let none = BTreeMap::new();
        let kinds = [
            ("view", &self.views, before.map_or(&none, |before| &before.views)),
            ("service", &self.services, before.map_or(&none, |before| &before.services)),
        ];
        let mut changes = Vec::new();
        for (kind, now, before) in kinds {
            for (name, hash) in now {
                let change = match before.get(name) {
                    None => Change::New,
                    Some(old) if old == hash => Change::Unchanged,
                    Some(_) => Change::Changed,
                };
                changes.push((format!("{kind} {name}"), change));
            }
            let gone = before.keys().filter(|name| !now.contains_key(*name));
            changes.extend(gone.map(|name| (format!("{kind} {name}"), Change::Removed)));
        }
        changes
    }
}
