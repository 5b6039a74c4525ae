//! The output folder of a run: the package and the report, which appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};

use super::run::RunReport;

/// Refuses a folder that is there already.
pub(super) fn check_free(folder: &Path) -> anyhow::Result<()> {
    if folder.symlink_metadata().is_ok() {
        bail!("output folder {} is there already; name another", folder.display());
    }
    Ok(())
}

/// Writes the package and the report. What a failed attempt wrote is removed again.
pub(super) fn write(
    folder: &Path,
    package: &BTreeMap<String, Vec<u8>>,
    report: &RunReport,
) -> anyhow::Result<()> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    check_free(folder)?;
    let aside = tempfile::Builder::new().prefix(".sluice-run-").tempdir_in(parent)?;
    let inside = aside.path().join("package");
    std::fs::create_dir(&inside)?;
    for (path, bytes) in package {
        write_file(&inside.join(path), bytes)?;
    }
    write_file(&aside.path().join("report.json"), &serde_json::to_vec_pretty(report)?)?;
    std::fs::rename(aside.path(), folder)
        .with_context(|| format!("move the run to {}", folder.display()))?;
    // The folder has moved, so there is nothing left to remove.
    let _moved = aside.keep();
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
