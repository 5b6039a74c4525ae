//! One model's folder in Triton's layout: `<version>/model.onnx`, and beside the versions
//! `config.pbtxt`, `deployment.toml`, label files and `warmup/`. What it holds, which versions
//! of it are wanted, and the candidates that come of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::grpc::model_version_policy::PolicyChoice;
use sluice_protocol::{ModelName, ModelVersion};

use super::settings_file::{self, Stamp, unreadable};
use crate::error::{LoadError, clip};
use crate::load::Candidate;

const CONFIG_FILE: &str = "config.pbtxt";
pub(super) const DEPLOYMENT_FILE: &str = "deployment.toml";
const WARMUP_FOLDER: &str = "warmup";
/// The largest file beside the versions that is read, in bytes.
const MOST_BESIDE: u64 = 64 << 20;

/// What every file that decides how a version is served looks like from outside.
pub(crate) type Fingerprint = Vec<(PathBuf, Stamp)>;

/// Files and folders that cannot be read, or are not there, and why.
pub(super) type Faults = BTreeMap<PathBuf, String>;

/// A model's folder as it was found.
#[derive(Debug, Clone)]
pub(crate) struct ModelFolder {
    pub(crate) model: ModelName,
    path: PathBuf,
    config: ConfigFile,
    /// The versions that are wanted.
    pub(crate) versions: BTreeMap<ModelVersion, Fingerprint>,
}

/// `config.pbtxt` as it was read.
#[derive(Debug, Clone)]
struct ConfigFile {
    stamp: Stamp,
    /// None when there is none; else what it says, or what is wrong with it.
    config: Result<Option<ModelConfig>, String>,
}

impl ModelFolder {
    /// Looks through a model's folder. A version that cannot be read stays as it was `seen`; if
    /// it never was, loading it will say why it is refused. A configuration that is `given` stands
    /// in for the folder's own.
    pub(super) fn scan(
        model: &ModelName,
        path: PathBuf,
        seen: Option<&Self>,
        given: Option<ModelConfig>,
        faults: &mut Faults,
    ) -> std::io::Result<Self> {
        let config = match given {
            Some(config) => ConfigFile { stamp: None, config: Ok(Some(config)) },
            None => ConfigFile::read(model, &path, seen.map(|seen| &seen.config)),
        };
        let mut common = beside(&path)?;
        common.push(path.join(CONFIG_FILE));
        common.push(path.join(DEPLOYMENT_FILE));
        let common: Fingerprint = common.into_iter().map(fingerprint_file).collect();
        let mut versions = BTreeMap::new();
        for entry in std::fs::read_dir(&path)? {
            let path = entry?.path();
            let Some(version) = name_of::<ModelVersion>(&path) else { continue };
            let fingerprint = match files_below(&path) {
                Ok(files) => {
                    let files = files.into_iter().map(fingerprint_file);
                    common.iter().cloned().chain(files).collect()
                }
                Err(_) if is_gone(&path) => continue,
                Err(error) => {
                    faults.insert(path, error.to_string());
                    let seen = seen.and_then(|seen| seen.versions.get(&version)).cloned();
                    seen.unwrap_or_else(|| common.clone())
                }
            };
            versions.insert(version, fingerprint);
        }
        let mut folder = Self { model: model.clone(), path, config, versions };
        folder.keep_wanted(faults);
        Ok(folder)
    }

    /// Whether the configuration says which versions are wanted.
    pub(super) fn names_versions(&self) -> bool {
        matches!(&self.config.config, Ok(Some(config)) if policy(config).is_some())
    }

    /// The labels of its versions. None when the settings that say so cannot be read.
    pub(super) fn labels(&self) -> Option<BTreeMap<String, ModelVersion>> {
        settings_file::read(&self.path.join(DEPLOYMENT_FILE)).ok().map(|settings| settings.labels)
    }

    /// Reads a version, once.
    pub(crate) fn candidate(&self, version: ModelVersion) -> Result<Candidate, LoadError> {
        Ok(Candidate {
            model: self.model.clone(),
            version,
            config: self.config.config.clone().map_err(LoadError::ConfigFile)?,
            settings: settings_file::read(&self.path.join(DEPLOYMENT_FILE))?,
            files: read_files(&self.path.join(version.to_string()))?,
            beside: read_beside(&self.path)?,
        })
    }

    /// Leaves out the versions that the configuration does not want.
    fn keep_wanted(&mut self, faults: &mut Faults) {
        let Ok(Some(config)) = &self.config.config else { return };
        if let Some(PolicyChoice::Specific(specific)) = policy(config) {
            for version in &specific.versions {
                let there = u64::try_from(*version).ok().map(ModelVersion);
                if !there.is_some_and(|version| self.versions.contains_key(&version)) {
                    let reason = "version_policy names it, but it is not there";
                    faults.insert(self.path.join(version.to_string()), reason.to_owned());
                }
            }
        }
        let wanted = wanted(config, self.versions.keys().copied().collect());
        self.versions.retain(|version, _| wanted.contains(version));
    }
}

impl ConfigFile {
    /// Reads the file, unless it looks as it did when it was read `before`.
    fn read(model: &ModelName, folder: &Path, before: Option<&Self>) -> Self {
        let path = folder.join(CONFIG_FILE);
        // Taken before the file is read: a change in between is seen the next time.
        let stamp = settings_file::stamp(&path);
        if let Some(before) = before.filter(|before| stamp.is_some() && before.stamp == stamp) {
            return before.clone();
        }
        let config = match std::fs::read_to_string(&path) {
            Ok(text) => parse(model, &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        Self { stamp, config }
    }
}

fn parse(model: &ModelName, text: &str) -> Result<ModelConfig, String> {
    let config = ModelConfig::parse_text(text).map_err(|error| error.to_string())?;
    check_name(model, &config)?;
    Ok(config)
}

/// A configuration may leave the name out, but not give another one.
pub(super) fn check_name(model: &ModelName, config: &ModelConfig) -> Result<(), String> {
    if config.name.is_empty() || config.name == model.as_str() {
        return Ok(());
    }
    let name = clip(&config.name);
    Err(format!("name is {name:?}, but the model is called {:?}", model.as_str()))
}

/// Which of `there` a configuration wants. All, when it does not say: somebody asks for each by
/// its number, and none may stop answering because a newer one came. (Triton wants the latest
/// alone; `version_policy: { latest { num_versions: 1 } }` says so.)
pub(super) fn wanted(
    config: &ModelConfig,
    there: BTreeSet<ModelVersion>,
) -> BTreeSet<ModelVersion> {
    match policy(config) {
        None | Some(PolicyChoice::All(_)) => there,
        Some(PolicyChoice::Latest(latest)) => {
            let most = usize::try_from(latest.num_versions.max(1)).unwrap_or(usize::MAX);
            there.into_iter().rev().take(most).collect()
        }
        Some(PolicyChoice::Specific(specific)) => {
            let named = |version: &ModelVersion| {
                let mut versions = specific.versions.iter();
                versions.any(|&named| u64::try_from(named) == Ok(version.0))
            };
            there.into_iter().filter(named).collect()
        }
    }
}

/// Which versions a configuration wants, if it says.
pub(super) fn policy(config: &ModelConfig) -> Option<&PolicyChoice> {
    config.version_policy.as_ref()?.policy_choice.as_ref()
}

/// The files beside the versions, sorted: those of the folder itself that have no meaning of
/// their own, and those below `warmup/`.
fn beside(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == WARMUP_FOLDER && path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.is_file()
            && !name.as_encoded_bytes().starts_with(b".")
            && name != CONFIG_FILE
            && name != DEPLOYMENT_FILE
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The contents of the files beside the versions by path in the folder, without those that are
/// too large to be meant.
fn read_beside(folder: &Path) -> Result<BTreeMap<String, Bytes>, LoadError> {
    let mut files = BTreeMap::new();
    for path in beside(folder).map_err(|error| unreadable(folder, &error))? {
        let length = path.metadata().map_err(|error| unreadable(&path, &error))?.len();
        if length > MOST_BESIDE {
            let path = path.display();
            tracing::warn!(%path, length, "left out a file that is larger than {MOST_BESIDE} bytes");
            continue;
        }
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        files.insert(inside(folder, &path), bytes.into());
    }
    Ok(files)
}

/// A version's files by their path inside it, joined by `/`.
fn read_files(folder: &Path) -> Result<BTreeMap<String, Bytes>, LoadError> {
    let mut files = BTreeMap::new();
    for path in files_below(folder).map_err(|error| unreadable(folder, &error))? {
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        files.insert(inside(folder, &path), bytes.into());
    }
    Ok(files)
}

/// Where `path` lies in `folder`, joined by `/`.
fn inside(folder: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

/// All files below `folder`, sorted, without hidden ones.
fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a file or folder is called, if its name is a `T`.
pub(super) fn name_of<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Whether nothing has this name any more, not even a link that leads nowhere.
pub(super) fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn fingerprint_file(path: PathBuf) -> (PathBuf, Stamp) {
    let stamp = settings_file::stamp(&path);
    (path, stamp)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::ModelVersion;
    use sluice_protocol::grpc::ModelConfig;

    use super::{Faults, ModelFolder, wanted};

    #[test]
    fn a_version_policy_chooses_among_what_is_there() {
        for (text, expected) in [
            ("", &[1, 2, 5][..]),
            ("version_policy { all {} }", &[1, 2, 5]),
            ("version_policy { }", &[1, 2, 5]),
            ("version_policy { latest { num_versions: 2 } }", &[2, 5]),
            ("version_policy { latest { num_versions: 9 } }", &[1, 2, 5]),
            ("version_policy { latest { } }", &[5]),
            ("version_policy { specific { versions: [2, 7, -1] } }", &[2]),
            ("version_policy { specific { } }", &[]),
        ] {
            let config = ModelConfig::parse_text(text).unwrap();
            let there = [1, 2, 5].map(ModelVersion).into();
            let found: Vec<u64> = wanted(&config, there).into_iter().map(|v| v.0).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_folder_is_read_with_what_lies_beside_its_versions() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("m");
        for (path, text) in [
            ("1/model.onnx", "one"),
            ("2/deep/er.bin", "two"),
            ("2/.hidden", "x"),
            ("03/model.onnx", "no version"),
            ("0/model.onnx", "no version"),
            ("labels.txt", "a\nb"),
            (".swap", "x"),
            ("warmup/rows/x", "row"),
            ("notes/readme.txt", "elsewhere"),
            ("config.pbtxt", "name: 'm' version_policy { specific { versions: [2, 3] } }"),
        ] {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let model = "m".parse().unwrap();
        let mut faults = Faults::new();
        let found = ModelFolder::scan(&model, folder.clone(), None, None, &mut faults).unwrap();
        assert_eq!(found.versions.keys().collect::<Vec<_>>(), [&ModelVersion(2)]);
        assert!(faults[&folder.join("3")].contains("version_policy"), "{faults:?}");
        let candidate = found.candidate(ModelVersion(2)).unwrap();
        assert_eq!(candidate.files.keys().collect::<Vec<_>>(), ["deep/er.bin"]);
        assert_eq!(candidate.beside.keys().collect::<Vec<_>>(), ["labels.txt", "warmup/rows/x"]);
        assert_eq!(candidate.config.unwrap().name, "m");
        for changed in ["labels.txt", "warmup/rows/x", "config.pbtxt", "2/deep/er.bin"] {
            let path = folder.join(changed);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text + " ").unwrap();
            let again = ModelFolder::scan(&model, folder.clone(), Some(&found), None, &mut faults);
            assert_ne!(again.unwrap().versions, found.versions, "{changed}");
        }
    }

    #[test]
    fn a_broken_configuration_refuses_every_version_and_says_where() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("m");
        std::fs::create_dir_all(folder.join("1")).unwrap();
        for (text, says) in [
            ("name: 'm'\n\nmax_batch_size: true", "config.pbtxt: line 3: "),
            ("name: 'other'", "config.pbtxt: name is \"other\", but the model is called \"m\""),
        ] {
            std::fs::write(folder.join("config.pbtxt"), text).unwrap();
            let model = "m".parse().unwrap();
            let found = ModelFolder::scan(&model, folder.clone(), None, None, &mut Faults::new());
            let found = found.unwrap();
            assert!(found.versions.contains_key(&ModelVersion(1)));
            let error = found.candidate(ModelVersion(1)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
