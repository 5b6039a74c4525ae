//! Versions: making one out of files, and reading one back whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_protocol::{ModelName, ModelVersion};

use super::Client;
use crate::domain::{
    ARTIFACT_SCHEME, ArtifactPath, FileEntry, FilesMessage, TagMessage, UPLOADS, VersionReply,
    unique_id,
};
use crate::{RegistryError, Result};

/// The slowest upload that is waited for, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 << 10;

/// One file of a model package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// Its path inside the package: relative, normalised, joined by `/`.
    pub path: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A version and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its number.
    pub version: ModelVersion,
    /// Its files by path.
    pub files: Vec<FileEntry>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was created, by the registry's clock.
    pub created: SystemTime,
    /// What its creator wrote about it.
    pub description: String,
}

impl Client {
    /// Uploads `files` and makes a version of them. Until the last call of it nothing is
    /// visible: an upload that breaks off leaves no version. After
    /// [`RegistryError::Unavailable`] the version may or may not have been made.
    pub async fn create_version(
        &self,
        name: &ModelName,
        files: &[PackageFile],
        description: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<ModelVersion> {
        check_package(files)?;
        self.model(name).await?;
        let root = format!("{UPLOADS}/{name}/{}", unique_id()?);
        let made = self.upload_and_create(name, &root, files, description, tags).await;
        if made.is_err() {
            // Best effort. Should the version exist after all, its files are frozen and stay.
            drop(self.json::<Value>(self.http.delete(self.artifact(&root))).await);
        }
        made
    }

    /// One version with its files and tags.
    pub async fn version(&self, name: &ModelName, version: ModelVersion) -> Result<VersionInfo> {
        let number = version.to_string();
        let query = [("name", name.as_str()), ("version", &number)];
        let request = self.http.get(self.mlflow("model-versions", "get")).query(&query);
        let message = self.json::<VersionReply>(request).await?.model_version;
        Ok(VersionInfo {
            version: message.version.parse()?,
            files: self.files(name, version).await?,
            tags: tags_of(message.tags),
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(message.creation_timestamp),
            description: message.description.unwrap_or_default(),
        })
    }

    /// All files of a version. Each one's bytes have the digest that the registry recorded when
    /// the version was made; any other bytes are [`RegistryError::Corrupt`].
    pub async fn fetch_version(
        &self,
        name: &ModelName,
        version: ModelVersion,
    ) -> Result<Vec<PackageFile>> {
        let mut files = Vec::new();
        for entry in self.files(name, version).await? {
            let bytes = self.fetch_entry(&entry).await?;
            files.push(PackageFile { path: entry.path, bytes });
        }
        Ok(files)
    }

    async fn files(&self, name: &ModelName, version: ModelVersion) -> Result<Vec<FileEntry>> {
        let number = version.to_string();
        let url = self.sluice(&["models", name.as_str(), "versions", &number, "files"]);
        let files = self.json::<FilesMessage>(self.http.get(url)).await?.files;
        check_paths(files.iter().map(|file| file.path.as_str()))?;
        Ok(files)
    }

    async fn upload_and_create(
        &self,
        name: &ModelName,
        root: &str,
        files: &[PackageFile],
        description: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<ModelVersion> {
        for file in files {
            let limit = Duration::from_secs(30 + file.bytes.len() as u64 / SLOWEST_UPLOAD);
            let url = self.artifact(&format!("{root}/{}", file.path));
            let request = self.http.put(url).body(file.bytes.clone()).timeout(limit);
            self.send(request).await?;
        }
        let tags: Vec<TagMessage> = tags
            .iter()
            .map(|(key, value)| TagMessage { key: key.clone(), value: value.clone() })
            .collect();
        let body = json!({
            "name": name,
            "source": format!("{ARTIFACT_SCHEME}/{root}"),
            "description": description,
            "tags": tags,
        });
        let request = self.http.post(self.mlflow("model-versions", "create")).json(&body);
        Ok(self.json::<VersionReply>(request).await?.model_version.version.parse()?)
    }

    fn artifact(&self, path: &str) -> reqwest::Url {
        let mut segments = vec!["api", "2.0", "mlflow-artifacts", "artifacts"];
        segments.extend(path.split('/'));
        self.address(&segments)
    }
}

pub(super) fn tags_of(tags: Vec<TagMessage>) -> BTreeMap<String, String> {
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

fn check_package(files: &[PackageFile]) -> Result<()> {
    if files.is_empty() {
        return Err(RegistryError::InvalidArgument("a version needs at least one file".into()));
    }
    check_paths(files.iter().map(|file| file.path.as_str()))
}

/// Refuses paths that leave their directory, and two files of one path.
fn check_paths<'a>(paths: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for path in paths {
        path.parse::<ArtifactPath>()?;
        if !seen.insert(path) {
            return Err(RegistryError::InvalidArgument(format!("file {path:?} appears twice")));
        }
    }
    Ok(())
}
