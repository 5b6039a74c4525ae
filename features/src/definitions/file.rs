//! Definitions as they are written in TOML.

use std::collections::BTreeMap;

use serde::Deserialize;
use sluice_protocol::Format;

/// A definitions file. Its entries are read one by one, so that each can complain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(rename = "format")]
    pub(super) _format: Format<1>,
    #[serde(default)]
    pub(super) entity: Vec<toml::Value>,
    #[serde(default)]
    pub(super) source: Vec<toml::Value>,
    #[serde(default)]
    pub(super) feature_view: Vec<toml::Value>,
    #[serde(default)]
    pub(super) feature_service: Vec<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entity {
    pub(super) name: String,
    pub(super) join_key: String,
    pub(super) value_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) path: String,
    /// `csv` or `parquet`; the path's ending says it otherwise.
    pub(super) format: Option<String>,
    pub(super) timestamp_field: String,
    pub(super) created_timestamp_field: Option<String>,
    pub(super) schema: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureView {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) entity: String,
    pub(super) source: String,
    pub(super) freshness: String,
    #[serde(default)]
    pub(super) stale: Option<String>,
    pub(super) ttl: Option<String>,
    pub(super) features: Vec<Feature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Feature {
    pub(super) name: String,
    pub(super) expression: String,
    pub(super) default: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureService {
    pub(super) name: String,
    pub(super) entity: String,
    #[serde(default)]
    pub(super) views: Vec<String>,
    #[serde(default)]
    pub(super) request_fields: Vec<RequestField>,
    pub(super) columns: Vec<Column>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestField {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) data_type: String,
    #[serde(default = "yes")]
    pub(super) required: bool,
    pub(super) default: Option<toml::Value>,
}

/// A model input. Its name alone means the feature or field of that name.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Column {
    Name(String),
    Named { name: String, expression: String },
}

impl Column {
    pub(super) fn into_parts(self) -> (String, String) {
        match self {
            Self::Name(name) => (name.clone(), name),
            Self::Named { name, expression } => (name, expression),
        }
    }
}

fn yes() -> bool {
    true
}
