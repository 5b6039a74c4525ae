//! `manifest.toml`: what a model package is. Written by the trainer, checked by the gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::datatype::Datatype;
use crate::digest::Digest;
use crate::format::{Format, read_toml};
use crate::name::ModelName;

/// The graph's file name in a package.
pub const MODEL_FILE: &str = "model.onnx";
/// The manifest's file name in a package.
pub const MANIFEST_FILE: &str = "manifest.toml";
/// The reference profile's file name in a package.
pub const PROFILE_FILE: &str = "profile.json";
/// The parity rows' file name in a package.
pub const PARITY_FILE: &str = "parity.json";

/// A package's description. It is immutable: how the model is run (batching, instances) is
/// `deployment.toml`, outside the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version 1.
    pub format: Format<1>,
    /// The model that this is a version of.
    pub model: ModelName,
    /// The graph's inputs, in its order.
    pub inputs: Vec<TensorSpec>,
    /// The graph's outputs, in its order.
    pub outputs: Vec<TensorSpec>,
    /// The features that fill a graph input, when the model has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_service: Option<FeatureServicePin>,
    /// Every other file of the package and its digest.
    pub files: BTreeMap<String, Digest>,
    /// How the version came about (data range, learner, metrics): for people and audits.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub training: toml::Table,
}

/// Name, datatype and shape of a graph's input or output. -1 is a free dimension; the first
/// one is the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name in the graph.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Its dimensions.
    pub shape: Vec<i64>,
}

/// The feature service that a model was trained with. Serving with another one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureServicePin {
    /// The service's name.
    pub name: String,
    /// Its views, as `name@version`.
    pub views: Vec<String>,
    /// The hash of everything that decides a feature's value.
    pub schema_hash: Digest,
    /// The graph input that the features fill, FP32 of shape [-1, columns].
    pub input: String,
    /// The features in the order of that input's columns.
    pub columns: Vec<String>,
}

/// A manifest that cannot be read or contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not a manifest.
    #[error("{MANIFEST_FILE} cannot be read: {0}")]
    Parse(String),
    /// Not UTF-8.
    #[error("{MANIFEST_FILE} is not UTF-8")]
    Encoding,
    /// Readable, but wrong.
    #[error("{MANIFEST_FILE}: {0}")]
    Invalid(String),
}

impl Manifest {
    /// Reads and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Encoding)?;
        let manifest: Self = read_toml(text).map_err(ManifestError::Parse)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as TOML text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a manifest holds nothing that TOML cannot")
    }

    fn check(&self) -> Result<(), ManifestError> {
        let invalid = |text: String| Err(ManifestError::Invalid(text));
        if !self.files.contains_key(MODEL_FILE) {
            return invalid(format!("[files] does not list {MODEL_FILE}"));
        }
        if let Some(path) = self.files.keys().find(|path| !is_plain_path(path)) {
            return invalid(format!("[files] lists {path:?}, which is no plain relative path"));
        }
        if self.files.contains_key(MANIFEST_FILE) {
            return invalid(format!("[files] lists {MANIFEST_FILE} itself"));
        }
        if self.outputs.is_empty() {
            return invalid("there are no outputs".to_owned());
        }
        for specs in [&self.inputs, &self.outputs] {
            if let Some(twice) = repeated(specs.iter().map(|spec| &spec.name)) {
                return invalid(format!("tensor {twice:?} is there twice"));
            }
        }
        let Some(pin) = &self.feature_service else { return Ok(()) };
        if let Some(twice) = repeated(pin.columns.iter()) {
            return invalid(format!("feature_service.columns lists {twice:?} twice"));
        }
        let Some(input) = self.inputs.iter().find(|input| input.name == pin.input) else {
            return invalid(format!("feature_service.input {:?} is no input", pin.input));
        };
        let width = i64::try_from(pin.columns.len()).unwrap_or(i64::MAX);
        if input.datatype != Datatype::Fp32 || input.shape != [-1, width] {
            return invalid(format!(
                "input {:?} is {} {:?}, but {width} features fill FP32 [-1, {width}]",
                input.name, input.datatype, input.shape
            ));
        }
        Ok(())
    }
}

fn repeated<'n>(mut names: impl Iterator<Item = &'n String>) -> Option<&'n String> {
    let mut seen = std::collections::HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// Whether `path` stays inside the package: relative, normalised, without a backslash.
fn is_plain_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    const GOOD: &str = r#"
        format = 1
        model = "demand-forecast"
        inputs = [{ name = "features", datatype = "FP32", shape = [-1, 2] }]
        outputs = [{ name = "prediction", datatype = "FP32", shape = [-1] }]
        [feature_service]
        name = "demand"
        views = ["store_sales@1"]
        schema_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        input = "features"
        columns = ["promo", "units"]
        [files]
        "model.onnx" = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        [training]
        rows = 7
    "#;

    #[test]
    fn a_manifest_round_trips() {
        let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(Manifest::parse(manifest.to_toml().as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn contradictions_are_named() {
        for (from, to, says) in [
            ("format = 1", "format = 2", "newer"),
            ("[-1, 2]", "[-1, 3]", "2 features"),
            ("input = \"features\"", "input = \"other\"", "is no input"),
            ("\"model.onnx\" =", "\"../model.onnx\" =", "does not list"),
            (
                "[files]",
                "[files]\n\"../x\" = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
                "no plain",
            ),
            ("demand-forecast", "../x", "model name"),
            ("format = 1", "format = 2\n later = 1", "newer"),
            ("\"promo\", \"units\"", "\"promo\", \"promo\"", "twice"),
        ] {
            let error = Manifest::parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(says), "{to}: {error}");
        }
    }
}
