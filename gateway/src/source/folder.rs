//! One model's folder in Triton's layout: `<version>/model.onnx`, and beside the versions
//! `config.pbtxt`, `deployment.toml` and the files that the first names. What it holds, which
//! versions of it are wanted, and the candidates that come of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_protocol::grpc::ModelConfig;
use sluice_protocol::grpc::model_version_policy::PolicyChoice;
use sluice_protocol::{ModelName, ModelVersion};

use super::files::{check_regular, files_below, is_gone, read_files, read_regular};
use super::fingerprint::{Fingerprint, Stamp, stamp};
use super::settings_file::{self, unreadable};
use crate::error::LoadError;
use crate::load::{Candidate, DeploymentSettings};
use crate::model_config::{check_name, named_paths};

const CONFIG_FILE: &str = "config.pbtxt";
const DEPLOYMENT_FILE: &str = "deployment.toml";
/// The largest configuration that is read, in bytes.
const MOST_CONFIG: u64 = 16 << 20;
/// What the files that a configuration names may have together, in bytes.
const MOST_NAMED: u64 = 256 << 20;

/// Files and folders of which nothing is served, there or not, and why.
pub(crate) type Faults = BTreeMap<PathBuf, String>;

/// A model's folder as it was found.
#[derive(Debug, Clone)]
pub(crate) struct ModelFolder {
    pub(crate) model: ModelName,
    path: PathBuf,
    config: ConfigFile,
    /// The labels of its versions. None when the settings that say so cannot be read.
    pub(super) labels: Option<BTreeMap<String, ModelVersion>>,
    /// The versions that are wanted, with every file that decides how each is served.
    pub(crate) versions: BTreeMap<ModelVersion, Fingerprint>,
}

/// `config.pbtxt` as it was read.
#[derive(Debug, Clone)]
struct ConfigFile {
    /// None when it could not be read too: at the next look it may.
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
        let beside = config.named().into_iter().chain([DEPLOYMENT_FILE.to_owned()]);
        let mut common: Vec<_> = beside.map(|file| look(path.join(file))).collect();
        common.push((path.join(CONFIG_FILE), config.stamp));
        let labels = settings(&path).ok().map(|settings| settings.labels);
        let mut versions = BTreeMap::new();
        for entry in std::fs::read_dir(&path)? {
            let path = entry?.path();
            let Some(version) = name_of::<ModelVersion>(&path) else {
                faults.extend(misnamed_version(path));
                continue;
            };
            let seen = seen.and_then(|seen| seen.versions.get(&version));
            let fingerprint = match files_below(&path) {
                Ok(files) => {
                    let files = files.into_iter().map(look);
                    Fingerprint::new(common.iter().cloned().chain(files).collect(), seen)
                }
                Err(_) if is_gone(&path) => continue,
                Err(error) => {
                    faults.insert(path, error.to_string());
                    seen.cloned().unwrap_or_else(|| Fingerprint::new(common.clone(), None))
                }
            };
            versions.insert(version, fingerprint);
        }
        let mut folder = Self { model: model.clone(), path, config, labels, versions };
        folder.keep_wanted(faults);
        folder.check_labels(faults);
        Ok(folder)
    }

    /// Whether the configuration says which versions are wanted.
    pub(super) fn names_versions(&self) -> bool {
        matches!(&self.config.config, Ok(Some(config)) if policy(config).is_some())
    }

    /// Reads a version, once, and notes what it holds.
    pub(crate) fn candidate(&self, version: ModelVersion) -> Result<Candidate, LoadError> {
        self.versions.get(&version).into_iter().for_each(Fingerprint::note_contents);
        let config = self.config.config.clone().map_err(LoadError::ConfigFile)?;
        let beside = config.as_ref().map(|config| read_named(&self.path, config)).transpose()?;
        Ok(Candidate {
            model: self.model.clone(),
            version,
            config,
            settings: settings(&self.path)?,
            files: read_files(&self.path.join(version.to_string()))?,
            beside: beside.unwrap_or_default(),
        })
    }

    /// Leaves out the versions that the configuration does not want.
    fn keep_wanted(&mut self, faults: &mut Faults) {
        if self.versions.is_empty() {
            let reason = "it has no version; its layout is MODEL/VERSION/model.onnx";
            faults.insert(self.path.clone(), reason.to_owned());
        }
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
        if wanted.is_empty() && !self.versions.is_empty() {
            let reason = "version_policy wants none of the versions that are there";
            faults.insert(self.path.clone(), reason.to_owned());
        }
        self.versions.retain(|version, _| wanted.contains(version));
    }

    /// Tells of labels that name no version that is wanted.
    fn check_labels(&self, faults: &mut Faults) {
        let labels = self.labels.iter().flatten();
        let dangling = labels.filter(|(_, version)| !self.versions.contains_key(version));
        let dangling: Vec<_> = dangling
            .map(|(label, version)| format!("label {label:?} names version {version}"))
            .collect();
        if !dangling.is_empty() {
            let reason = format!("{}, of which nothing is served", dangling.join(", "));
            faults.insert(self.path.join(DEPLOYMENT_FILE), format!("{DEPLOYMENT_FILE}: {reason}"));
        }
    }
}

impl ConfigFile {
    /// Reads the file, unless it looks as it did when it was read `before`.
    fn read(model: &ModelName, folder: &Path, before: Option<&Self>) -> Self {
        let path = folder.join(CONFIG_FILE);
        // Taken before the file is read: a change in between is seen the next time.
        let stamp = stamp(&path);
        if let Some(before) = before.filter(|before| stamp.is_some() && before.stamp == stamp) {
            return before.clone();
        }
        match read_regular(&path, MOST_CONFIG) {
            Ok(bytes) => Self { stamp, config: parse(model, bytes).map(Some) },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self { stamp, config: Ok(None) }
            }
            Err(error) => Self { stamp: None, config: Err(error.to_string()) },
        }
    }

    /// The files that it names, by path in the model's folder.
    fn named(&self) -> BTreeSet<String> {
        let config = self.config.as_ref().ok().and_then(Option::as_ref);
        config.map(named_paths).unwrap_or_default()
    }
}

fn parse(model: &ModelName, bytes: Vec<u8>) -> Result<ModelConfig, String> {
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    // Editors on Windows begin files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let config = ModelConfig::parse_text(text).map_err(|error| error.to_string())?;
    check_name(&config, model)?;
    Ok(config)
}

/// How a model is run on this machine: `deployment.toml` in its `folder`, or the defaults.
pub(super) fn settings(folder: &Path) -> Result<DeploymentSettings, LoadError> {
    let path = folder.join(DEPLOYMENT_FILE);
    check_regular(&path).map_err(|error| unreadable(&path, &error))?;
    settings_file::read(&path)
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

/// The contents of the files that a configuration names, as far as they are there, by path in the
/// model's `folder`. Links are followed as those of the graph are.
fn read_named(folder: &Path, config: &ModelConfig) -> Result<BTreeMap<String, Bytes>, LoadError> {
    let mut files = BTreeMap::new();
    let mut left = MOST_NAMED;
    for name in named_paths(config) {
        let bytes = match read_regular(&folder.join(&name), left) {
            Ok(bytes) => bytes,
            // Who named it says so.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                let read_before = left < MOST_NAMED;
                let together = if read_before { " with those that were read before" } else { "" };
                let reason = format!("file {name:?}: {error}{together}");
                return Err(LoadError::Configuration(reason));
            }
        };
        left = left.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        files.insert(name, bytes.into());
    }
    Ok(files)
}

/// A folder that would be a version's if its name were one, and what is wrong with it.
fn misnamed_version(path: PathBuf) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_str()?;
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let error = name.parse::<ModelVersion>().err().filter(|_| is_number && path.is_dir())?;
    Some((path, error.to_string()))
}

/// A folder that would be a model's if its name were one, and what is wrong with it.
pub(super) fn misnamed_model(path: PathBuf) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_string_lossy();
    let error = name.parse::<ModelName>().err().filter(|_| !name.starts_with('.'))?;
    let mut inside = std::fs::read_dir(&path).ok()?.flatten();
    let has_version = inside.any(|entry| name_of::<ModelVersion>(&entry.path()).is_some());
    has_version.then(|| (path, error.to_string()))
}

/// What a file or folder is called, if its name is a `T`.
pub(super) fn name_of<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_name()?.to_str()?.parse().ok()
}

fn look(path: PathBuf) -> (PathBuf, Stamp) {
    let stamp = stamp(&path);
    (path, stamp)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use sluice_protocol::ModelVersion;
    use sluice_protocol::grpc::ModelConfig;

    use super::{Faults, MOST_CONFIG, MOST_NAMED, ModelFolder, wanted};
    use crate::error::LoadError;
    use crate::load::Candidate;
    use crate::source::files::MOST_DEEP;

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
            ("2/labels.txt", "c\nd"),
            ("2/.hidden", "x"),
            ("03/model.onnx", "no version"),
            ("0/model.onnx", "no version"),
            ("labels.txt", "a\nb"),
            (".swap", "x"),
            ("warmup/rows/x", "row"),
            ("notes/readme.txt", "elsewhere"),
            ("deployment.toml", "format = 1\n[labels]\nold = 1\nnew = 2\n"),
            (
                "config.pbtxt",
                "\u{feff}name: 'm' version_policy { specific { versions: [2, 3] } }
                 output [ { label_filename: './labels.txt' }, { label_filename: '2/labels.txt' } ]
                 model_warmup { inputs { key: 'x' value { input_data_file: 'rows/x' } } }",
            ),
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
        for name in ["0", "03"] {
            assert!(faults[&folder.join(name)].contains("without leading zeros"), "{faults:?}");
        }
        let dangling = &faults[&folder.join("deployment.toml")];
        assert!(dangling.contains("label \"old\" names version 1, of which"), "{dangling}");
        assert_eq!(faults.len(), 4, "{faults:?}");
        let candidate = found.candidate(ModelVersion(2)).unwrap();
        assert_eq!(candidate.files.keys().collect::<Vec<_>>(), ["deep/er.bin", "labels.txt"]);
        let named: Vec<_> = candidate.beside.keys().collect();
        assert_eq!(named, ["2/labels.txt", "labels.txt", "warmup/rows/x"]);
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

    /// A model's folder with a version, and a configuration that names `file`.
    fn naming(file: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("m");
        std::fs::create_dir_all(folder.join("1")).unwrap();
        let text = format!("output {{ label_filename: {file:?} }}");
        std::fs::write(folder.join("config.pbtxt"), text).unwrap();
        (root, folder)
    }

    fn first(folder: &Path) -> Result<Candidate, LoadError> {
        let (model, folder) = ("m".parse().unwrap(), folder.to_owned());
        let found = ModelFolder::scan(&model, folder, None, None, &mut Faults::new()).unwrap();
        found.candidate(ModelVersion(1))
    }

    #[test]
    fn links_in_a_circle_end_and_files_that_never_end_are_refused() {
        let (_root, folder) = naming("labels.txt");
        std::fs::write(folder.join("1/model.onnx"), "one").unwrap();
        for name in ["a", "b"] {
            symlink(".", folder.join("1").join(name)).unwrap();
        }
        let files = first(&folder).unwrap().files;
        assert_eq!(files.keys().collect::<Vec<_>>(), ["model.onnx"]);
        for file in ["1/pipe", "labels.txt", "deployment.toml", "config.pbtxt"] {
            let path = folder.join(file);
            let before = std::fs::read(&path).ok();
            drop(std::fs::remove_file(&path));
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            let error = first(&folder).unwrap_err().to_string();
            assert!(error.contains("is no regular file"), "{file}: {error}");
            std::fs::remove_file(&path).unwrap();
            before.into_iter().for_each(|text| std::fs::write(&path, text).unwrap());
        }
        let mut deep = folder.join("1");
        for _ in 0..MOST_DEEP {
            deep.push("deep");
        }
        std::fs::create_dir_all(deep).unwrap();
        let error = first(&folder).unwrap_err().to_string();
        assert!(error.contains("folders inside each other"), "{error}");
    }

    #[test]
    fn what_is_named_is_read_wherever_links_lead_and_up_to_a_size() {
        let (root, folder) = naming("labels.txt");
        let (path, outside) = (folder.join("labels.txt"), root.path().join("outside"));
        assert!(first(&folder).unwrap().beside.is_empty());
        // So caches of downloads and of data versions lay a model out.
        std::fs::write(&outside, "a").unwrap();
        symlink(&outside, &path).unwrap();
        assert_eq!(first(&folder).unwrap().beside["labels.txt"], "a");
        std::fs::remove_file(&path).unwrap();
        symlink("labels.txt", &path).unwrap();
        let error = first(&folder).unwrap_err().to_string();
        assert!(error.contains("file \"labels.txt\": "), "{error}");
        std::fs::remove_file(&path).unwrap();
        // It takes no room on the disk.
        std::fs::File::create(&path).unwrap().set_len(MOST_NAMED + 1).unwrap();
        let error = first(&folder).unwrap_err().to_string();
        assert!(error.contains("file \"labels.txt\": it is larger than 268435456"), "{error}");
    }

    /// A file that cannot be read may be readable at the next look, without being touched.
    #[test]
    fn a_configuration_is_read_until_that_succeeds() {
        let (_root, folder) = naming("labels.txt");
        let (model, path) = ("m".parse().unwrap(), folder.join("config.pbtxt"));
        let scan = |seen| ModelFolder::scan(&model, folder.clone(), seen, None, &mut Faults::new());
        let text = std::fs::read(&path).unwrap();
        std::fs::File::create(&path).unwrap().set_len(MOST_CONFIG + 1).unwrap();
        let failed = scan(None).unwrap();
        assert!(failed.candidate(ModelVersion(1)).is_err());
        let stamp = failed.config.stamp;
        assert_eq!((stamp, scan(Some(&failed)).unwrap().versions), (None, failed.versions.clone()));
        std::fs::write(&path, text).unwrap();
        let found = scan(Some(&failed)).unwrap();
        assert_ne!(found.versions, failed.versions);
        assert!(found.candidate(ModelVersion(1)).is_ok());
        assert_eq!(scan(Some(&found)).unwrap().versions, found.versions);
    }
}
