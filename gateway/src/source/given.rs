//! What a load call brings in place of what the model's folder has: a configuration, and perhaps
//! every file. It is read out of memory and never touches a disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::{ModelName, ModelVersion};

use super::folder::wanted;
use crate::error::{GatewayError, LoadError, clip};
use crate::load::{Candidate, DeploymentSettings};
use crate::model_config::{check_name, named_paths};

/// Files by their path.
type Files = BTreeMap<String, Bytes>;

/// A configuration and files, as a call gave them.
#[derive(Debug)]
pub(crate) struct Given {
    pub(super) config: ModelConfig,
    versions: BTreeMap<ModelVersion, Files>,
    beside: Files,
}

impl Given {
    /// What a call brings: a configuration as JSON, and files by their path in the model's folder
    /// (`1/model.onnx`).
    pub(crate) fn new(
        model: &ModelName,
        config: &str,
        files: BTreeMap<String, Bytes>,
    ) -> Result<Self, GatewayError> {
        let refuse = |reason| GatewayError::Invalid(format!("parameter \"config\": {reason}"));
        let config = ModelConfig::parse_json(config).map_err(|error| refuse(error.to_string()))?;
        check_name(&config, model).map_err(refuse)?;
        let named = named_paths(&config);
        let mut given = Self { config, versions: BTreeMap::new(), beside: Files::new() };
        for (path, bytes) in files {
            given.place(&path, bytes, &named)?;
        }
        Ok(given)
    }

    /// Whether it has files, which then are all that count.
    pub(super) fn has_files(&self) -> bool {
        !self.versions.is_empty() || !self.beside.is_empty()
    }

    /// The versions that are wanted of those that were given.
    pub(super) fn wanted(&self) -> impl Iterator<Item = ModelVersion> {
        wanted(&self.config, self.versions.keys().copied().collect()).into_iter()
    }

    /// A version of `model`, to be run as `settings` say.
    pub(super) fn candidate(
        &self,
        model: &ModelName,
        version: ModelVersion,
        settings: DeploymentSettings,
    ) -> Result<Candidate, LoadError> {
        let files = self.versions.get(&version).cloned();
        Ok(Candidate {
            model: model.clone(),
            version,
            files: files.ok_or_else(|| LoadError::Package("it has no files".to_owned()))?,
            settings,
            config: Some(self.config.clone()),
            beside: self.named(),
        })
    }

    /// The files that the configuration names, by path in the model's folder.
    fn named(&self) -> Files {
        let in_version = |path: &str| {
            let (version, inside) = path.split_once('/')?;
            self.versions.get(&version.parse::<ModelVersion>().ok()?)?.get(inside)
        };
        let named = named_paths(&self.config).into_iter().filter_map(|path| {
            let bytes = self.beside.get(&path).or_else(|| in_version(&path))?.clone();
            Some((path, bytes))
        });
        named.collect()
    }

    /// Files beside the versions lie in no folder, unless the configuration names them there.
    fn place(
        &mut self,
        path: &str,
        bytes: Bytes,
        named: &BTreeSet<String>,
    ) -> Result<(), GatewayError> {
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        let parts = || path.split('/').all(is_plain);
        let version = path.split_once('/').and_then(|(version, inside)| {
            version.parse::<ModelVersion>().ok().map(|version| (version, inside))
        });
        match version.filter(|_| parts()) {
            Some((version, inside)) => {
                self.versions.entry(version).or_default().insert(inside.to_owned(), bytes);
            }
            None if named.contains(path)
                || parts() && (!path.contains('/') || path.starts_with("warmup/")) =>
            {
                self.beside.insert(path.to_owned(), bytes);
            }
            None => {
                return Err(GatewayError::Invalid(format!(
                    "parameter \"file:{}\": a file is named by its version and its path there, as in file:1/model.onnx",
                    clip(path).escape_debug()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_protocol::ModelVersion;

    use super::Given;

    fn given(config: &str, paths: &[&str]) -> Result<Given, String> {
        let files = paths.iter().map(|path| ((*path).to_owned(), Bytes::new())).collect();
        let given = Given::new(&"m".parse().unwrap(), config, files);
        given.map_err(|error| error.to_string())
    }

    #[test]
    fn files_belong_to_versions_or_lie_beside_them() {
        let found = given("{}", &["1/model.onnx", "12/a/b", "labels.txt", "warmup/x"]).unwrap();
        let versions: Vec<_> = found.wanted().collect();
        assert_eq!(versions, [ModelVersion(1), ModelVersion(12)]);
        assert_eq!(found.versions[&ModelVersion(12)].keys().collect::<Vec<_>>(), ["a/b"]);
        assert_eq!(found.beside.keys().collect::<Vec<_>>(), ["labels.txt", "warmup/x"]);
        assert!(found.has_files() && !given("{}", &[]).unwrap().has_files());
        let latest = r#"{"version_policy": {"latest": {"num_versions": 1}}}"#;
        let wanted: Vec<_> = given(latest, &["1/x", "2/x"]).unwrap().wanted().collect();
        assert_eq!(wanted, [ModelVersion(2)]);
    }

    #[test]
    fn what_is_named_is_found_where_it_was_given() {
        let config = r#"{"output": [{"label_filename": "sub/a"}, {"label_filename": "./1/b"}]}"#;
        let found = given(config, &["1/model.onnx", "1/b", "sub/a", "readme.txt"]).unwrap();
        assert_eq!(found.named().keys().collect::<Vec<_>>(), ["1/b", "sub/a"]);
        assert!(given("{}", &["sub/a"]).is_err());
    }

    #[test]
    fn what_is_no_place_in_a_model_is_refused() {
        for path in [
            "",
            "/1/model.onnx",
            "../m/1/model.onnx",
            "1/../../x",
            "1/",
            "1//x",
            "1/./x",
            "01/x",
            "x/model.onnx",
            "1/a\0b",
            "warmup/..",
            "..",
        ] {
            let error = given("{}", &[path]).unwrap_err();
            assert!(error.contains("as in file:1/model.onnx"), "{path:?}: {error}");
        }
        for (config, says) in [
            ("", "parameter \"config\": EOF"),
            ("{\"max_batch_size\": \"x\"}", "parameter \"config\": "),
            ("{\"name\": \"other\"}", "name is \"other\", but the model is called \"m\""),
        ] {
            let error = given(config, &[]).unwrap_err();
            assert!(error.contains(says), "{config}: {error}");
        }
    }
}
