//! MLflow's registry messages as JSON: numbers for 64-bit integers, unset fields and empty
//! lists left out.

use serde::{Deserialize, Serialize};

use super::change::FileEntry;

/// `registered_model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelMessage {
    pub(crate) name: String,
    pub(crate) creation_timestamp: u64,
    pub(crate) last_updated_timestamp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) latest_versions: Vec<VersionMessage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<TagMessage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<AliasMessage>,
}

/// `model_version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VersionMessage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) creation_timestamp: u64,
    pub(crate) last_updated_timestamp: u64,
    pub(crate) current_stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    pub(crate) source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run_link: Option<String>,
    pub(crate) status: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<TagMessage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<String>,
}

/// The answer of every call that gives one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VersionReply {
    pub(crate) model_version: VersionMessage,
}

/// A tag of a model or version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagMessage {
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: String,
}

/// An alias and the version that it names, which is text as in all of MLflow's messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliasMessage {
    pub(crate) alias: String,
    pub(crate) version: String,
}

/// The files of a version, of our own API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilesMessage {
    pub(crate) files: Vec<FileEntry>,
}
