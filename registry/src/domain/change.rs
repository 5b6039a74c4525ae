//! The change feed: what changed, in which order, and the whole at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_protocol::{Digest, ModelName, ModelVersion};

/// One committed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its place in the one order of all changes, counted from 1.
    pub sequence: u64,
    /// When it was committed, in milliseconds since 1970, by the registry's clock.
    pub time_ms: u64,
    /// What changed.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// What a change did. A rename is told as the old name's deletion and the new name's creation,
/// with its versions and aliases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeKind {
    /// A model was registered; it has no versions yet.
    ModelCreated {
        /// The model.
        model: ModelName,
    },
    /// A model is gone, and its versions and aliases with it.
    ModelDeleted {
        /// The model.
        model: ModelName,
    },
    /// A version is complete and readable.
    VersionCreated {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
    /// A version is gone; the deletion of its aliases was told before.
    VersionDeleted {
        /// The model.
        model: ModelName,
        /// The version.
        version: ModelVersion,
    },
    /// An alias names this version from now on.
    AliasSet {
        /// The model.
        model: ModelName,
        /// The alias.
        alias: String,
        /// The version that it names.
        version: ModelVersion,
    },
    /// An alias names nothing any more.
    AliasDeleted {
        /// The model.
        model: ModelName,
        /// The alias.
        alias: String,
    },
    /// A change of a kind that this version of Sluice does not know. A snapshot shows its effect.
    #[serde(other)]
    Unknown,
}

/// A stretch of the feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The changes after the asked cursor, in order; empty when nothing changed in time.
    #[serde(default)]
    pub events: Vec<Change>,
    /// The cursor to ask with next.
    pub next: u64,
    /// Which registry this is: another one has another order of changes.
    pub registry: String,
}

/// Everything that a follower of the feed knows, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last change that is part of the snapshot: the cursor to follow the feed from.
    pub sequence: u64,
    /// All models by name.
    #[serde(default)]
    pub models: Vec<SnapshotModel>,
    /// Which registry this is.
    pub registry: String,
}

/// One model of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotModel {
    /// The model.
    pub name: ModelName,
    /// Its versions in ascending order, all of them complete.
    #[serde(default)]
    pub versions: Vec<ModelVersion>,
    /// Its aliases and the versions that they name.
    #[serde(default)]
    pub aliases: BTreeMap<String, ModelVersion>,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path inside the version: relative, normalised, joined by `/`.
    pub path: String,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::{Change, ChangeKind};

    #[test]
    fn the_wire_form_of_a_change_is_flat() {
        let change = Change {
            sequence: 7,
            time_ms: 9,
            kind: ChangeKind::AliasSet {
                model: "m".parse().unwrap(),
                alias: "champion".into(),
                version: sluice_protocol::ModelVersion(2),
            },
        };
        let text = r#"{"sequence":7,"time_ms":9,"kind":"alias_set","model":"m","alias":"champion","version":2}"#;
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
        assert_eq!(serde_json::from_str::<Change>(text).unwrap(), change);
    }

    #[test]
    fn a_kind_from_the_future_is_readable() {
        let text =
            r#"{"sequence":7,"time_ms":9,"kind":"model_painted","model":"m","colour":"red"}"#;
        assert_eq!(serde_json::from_str::<Change>(text).unwrap().kind, ChangeKind::Unknown);
    }
}
