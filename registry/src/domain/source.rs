//! What a version is made from.

use std::str::FromStr;

use sluice_protocol::{ModelName, ModelVersion};

use super::{ARTIFACT_SCHEME, ArtifactPath};
use crate::{RegistryError, Result};

/// A version's source. Only what the registry itself keeps: a source on a disk or another
/// server could change, or name what its creator may not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The files under this artifact path.
    Artifacts(ArtifactPath),
    /// The files of another version.
    Version(ModelName, ModelVersion),
}

impl FromStr for Source {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix(ARTIFACT_SCHEME) {
            return artifacts(text, path);
        }
        if let Some(reference) = text.strip_prefix("models:/") {
            return version(text, reference);
        }
        Err(refused(
            text,
            "a version's files must lie in this registry: upload them and use mlflow-artifacts:/<path>, or name a version by models:/<name>/<version>",
        ))
    }
}

fn artifacts(text: &str, path: &str) -> Result<Source> {
    let path = path.strip_prefix("//").map_or(path, |rest| {
        // `mlflow-artifacts:///path` has an empty authority and is the same address.
        if rest.starts_with('/') { rest } else { path }
    });
    let path = path
        .strip_prefix('/')
        .ok_or_else(|| refused(text, "it must start with mlflow-artifacts:/"))?;
    if path.starts_with('/') {
        return Err(refused(text, "it names another server"));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    Ok(Source::Artifacts(
        path.parse().map_err(|error: RegistryError| refused(text, &error.to_string()))?,
    ))
}

fn version(text: &str, reference: &str) -> Result<Source> {
    let Some((name, number)) = reference.split_once('/') else {
        return Err(refused(
            text,
            "logged models and aliases cannot be a source; name a version by models:/<name>/<version>",
        ));
    };
    Ok(Source::Version(name.parse()?, number.parse()?))
}

fn refused(text: &str, why: &str) -> RegistryError {
    let shown: String = text.chars().take(300).collect();
    RegistryError::InvalidArgument(format!("Invalid model version source: '{shown}'. {why}"))
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn sources_stay_inside_the_registry() {
        for (good, path) in [
            ("mlflow-artifacts:/1/models/m-0/artifacts", "1/models/m-0/artifacts"),
            ("mlflow-artifacts:///a/b/", "a/b"),
        ] {
            assert_eq!(good.parse::<Source>().unwrap(), Source::Artifacts(path.parse().unwrap()));
        }
        assert!(matches!("models:/m/3".parse::<Source>().unwrap(), Source::Version(..)));
        for bad in [
            "",
            "/etc",
            "file:///etc",
            "s3://bucket/x",
            "mlflow-artifacts:",
            "mlflow-artifacts:/",
            "mlflow-artifacts:a",
            "mlflow-artifacts://host/a",
            "mlflow-artifacts:/../a",
            "mlflow-artifacts:/a/../../b",
            "mlflow-artifacts:/%2e%2e/a",
            "mlflow-artifacts:////a",
            "models:/m",
            "models:/m-0123",
            "models:/m@champion",
            "models:/../1",
            "models:/m/0",
            "runs:/0/model",
            "http://127.0.0.1/a",
        ] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
