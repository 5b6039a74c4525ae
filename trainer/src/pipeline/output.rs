//! The output folder of a run: the package and the report, which appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::report::RunReport;

/// An output folder in the making: beside its place until it is whole. Dropped before
/// [`Output::publish`], it disappears.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    aside: TempDir,
}

impl Output {
    /// Refuses a folder that is there already or that cannot be made.
    pub(super) fn begin(folder: &Path) -> anyhow::Result<Self> {
        check_free(folder)?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        let aside = tempfile::Builder::new().prefix(".sluice-run-").tempdir_in(parent);
        let aside = aside.with_context(|| format!("write in {}", parent.display()))?;
        Ok(Self { folder: folder.to_owned(), aside })
    }

    /// Writes the package aside.
    pub(super) fn write(&self, package: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
        let inside = self.aside.path().join("package");
        std::fs::create_dir(&inside)?;
        for (path, bytes) in package {
            write_file(&inside.join(path), bytes)?;
        }
        Ok(())
    }

    /// Adds the report and moves everything to its place. Where that cannot be done any more,
    /// the error names the place where everything is.
    pub(super) fn publish(self, report: &RunReport) -> anyhow::Result<()> {
        let Self { folder, aside } = self;
        // From here on nothing is removed: the folder moves, or stays for people to find.
        let aside = aside.keep();
        let publish = || {
            write_file(&aside.join("report.json"), &serde_json::to_vec_pretty(report)?)?;
            check_free(&folder)?;
            std::fs::rename(&aside, &folder)
                .with_context(|| format!("move the run to {}", folder.display()))
        };
        publish().with_context(|| format!("the run is left in {}", aside.display()))
    }
}

fn check_free(folder: &Path) -> anyhow::Result<()> {
    if folder.symlink_metadata().is_ok() {
        bail!("output folder {} is there already; name another", folder.display());
    }
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        // The folder's rename must not come before what is in it.
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}
