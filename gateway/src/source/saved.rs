//! `serving.json`: what was last served from the registry, so that a restart finds it again
//! while the registry is away.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluice_protocol::{Digest, Format, ModelName, ModelVersion};

const FILE: &str = "serving.json";

/// The last whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    format: Format<1>,
    /// Which registry it came from.
    pub(super) registry: String,
    pub(super) models: BTreeMap<ModelName, SavedModel>,
}

/// One model's versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedModel {
    /// The version that answers when none is named.
    pub(super) default: Option<ModelVersion>,
    /// Each version's files and their digests.
    pub(super) versions: BTreeMap<ModelVersion, BTreeMap<String, Digest>>,
    /// The aliases and the versions that they name.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, ModelVersion>,
    /// Those of the versions that came from another registry, where a number means something else.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) foreign: BTreeSet<ModelVersion>,
}

impl SavedModel {
    /// Whether all that is served of it came from another registry.
    pub(super) fn is_foreign(&self) -> bool {
        !self.versions.is_empty() && self.versions.keys().all(|one| self.foreign.contains(one))
    }
}

impl Saved {
    pub(super) const fn new(registry: String) -> Self {
        Self { format: Format::CURRENT, registry, models: BTreeMap::new() }
    }

    /// The state saved in `folder`, if there is one.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, String> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Replaces the saved state: whoever reads it finds the old one or this one, whole.
    pub(super) fn store(&self, folder: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?;
        replace(&folder.join(FILE), &text)
    }
}

/// Writes a file beside `path`, makes it durable and moves it into place.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut beside: PathBuf = path.to_owned();
    beside.as_mut_os_string().push(".new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{Saved, SavedModel};
    use sluice_protocol::{Digest, ModelVersion};

    #[test]
    fn a_saved_state_comes_back_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Saved::load(folder.path()).unwrap(), None);
        let mut saved = Saved::new("r".to_owned());
        let files = [("model.onnx".to_owned(), Digest::of(b"x"))].into();
        let versions = [(ModelVersion(2), files)].into();
        let labels = [("champion".to_owned(), ModelVersion(2))].into();
        let (default, foreign) = (Some(ModelVersion(2)), [ModelVersion(2)].into());
        let model = SavedModel { default, versions, labels, foreign };
        saved.models.insert("m".parse().unwrap(), model);
        saved.store(folder.path()).unwrap();
        assert_eq!(Saved::load(folder.path()).unwrap(), Some(saved));
        let path = folder.path().join("serving.json");
        let newer =
            std::fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
        std::fs::write(&path, newer).unwrap();
        assert!(Saved::load(folder.path()).unwrap_err().contains("newer"));
    }
}
