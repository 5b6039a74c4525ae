//! Files of models, read within bounds whatever lies in a folder: links in circles, pipes, files
//! that grow, and more of them than a model has.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::settings_file::unreadable;
use crate::error::LoadError;

/// Files and folders in a version, and folders inside each other.
const MOST_FILES: usize = 10_000;
pub(super) const MOST_DEEP: usize = 32;

/// A version's files by their path inside it, joined by `/`.
pub(super) fn read_files(folder: &Path) -> Result<BTreeMap<String, Bytes>, LoadError> {
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

/// All files below `folder`, sorted, without hidden ones. A link back to a folder that it lies in
/// leads nowhere new. What is neither file nor folder is an error, since reading it might not end.
pub(super) fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    walk(folder, &mut Vec::new(), &mut 0, &mut files)?;
    files.sort();
    Ok(files)
}

/// Adds the files below `folder`, which lies in the folders `above`, to `files`. `count` is what
/// was found so far.
fn walk(
    folder: &Path,
    above: &mut Vec<(u64, u64)>,
    count: &mut usize,
    files: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    let found = folder.metadata()?;
    let identity = (found.dev(), found.ino());
    if above.contains(&identity) {
        return Ok(());
    }
    if above.len() >= MOST_DEEP {
        let reason = format!("it has more than {MOST_DEEP} folders inside each other");
        return Err(std::io::Error::other(reason));
    }
    above.push(identity);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        *count += 1;
        if *count > MOST_FILES {
            let reason = format!("it has more than {MOST_FILES} files and folders");
            return Err(std::io::Error::other(reason));
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, above, count, files)?;
        } else {
            check_regular(&path)?;
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// The file at `path`, which may have `most` bytes.
pub(super) fn read_regular(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    let is_larger = file.metadata()?.len() > most
        // It may grow meanwhile.
        || file.take(most.saturating_add(1)).read_to_end(&mut bytes)? as u64 > most;
    if is_larger {
        return Err(std::io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// Refuses what is there and is no file, such as a pipe, which would be waited for without end.
pub(super) fn check_regular(path: &Path) -> std::io::Result<()> {
    match path.metadata() {
        Ok(found) if !found.is_file() => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Err(std::io::Error::other(format!("{name} is no regular file")))
        }
        // What cannot be looked at is told of by who reads it.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether nothing has this name any more, not even a link that leads nowhere.
pub(super) fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
