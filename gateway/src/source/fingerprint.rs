//! Whether files are as they were when they were read. How they look from outside says so at no
//! cost; where that leaves a doubt, what is in them decides.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};
use sluice_protocol::Digest;

use super::files::check_regular;

/// What a file looks like from outside. None when there is none.
pub(crate) type Stamp = Option<Look>;

/// Two files that look alike are one file as it was: what takes its place has another inode, and
/// no program sets the time at which that was changed, as it can set the file's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    length: u64,
    /// When the contents were changed, as the file says, in seconds and nanoseconds.
    modified: (i64, i64),
    place: (u64, u64),
    /// When the inode was changed: also by a link to the file, its rights or its owner.
    changed: (i64, i64),
}

/// How the file at `path` looks now.
pub(super) fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some(Look {
        length: found.len(),
        modified: (found.mtime(), found.mtime_nsec()),
        place: (found.dev(), found.ino()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

/// Files as they are at one moment. Two are equal when nothing has changed between them.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprint {
    looks: Vec<(PathBuf, Stamp)>,
    /// Of what they held when they were read. Empty until then, and when that failed.
    contents: OnceLock<Digest>,
}

impl Fingerprint {
    /// Files that look like this. When the same ones were `seen` elsewhere or with another inode's
    /// time alone (a backup by hard links does that, `chmod`, a mount that numbers its files anew),
    /// they are read to see whether they are the same.
    pub(super) fn new(looks: Vec<(PathBuf, Stamp)>, seen: Option<&Self>) -> Self {
        let contents = OnceLock::new();
        if let Some(seen) = seen
            && let Some(&known) = seen.contents.get()
            && (seen.looks == looks
                || are_alike(&seen.looks, &looks) && digest(&looks).ok() == Some(known))
        {
            contents.get_or_init(|| known);
        }
        Self { looks, contents }
    }

    /// The file at `path` as it is now.
    pub(super) fn of_file(path: PathBuf, seen: Option<&Self>) -> Self {
        let look = stamp(&path);
        Self::new(vec![(path, look)], seen)
    }

    /// Notes what the files hold. To be called before they are read for good: what is changed in
    /// between has another digest later on.
    pub(super) fn note_contents(&self) {
        if let Ok(digest) = digest(&self.looks) {
            self.contents.get_or_init(|| digest);
        }
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        match (self.contents.get(), other.contents.get()) {
            (Some(one), Some(other)) => one == other,
            _ => self.looks == other.looks,
        }
    }
}

/// Whether the same files are there, with the length and the time that they had.
fn are_alike(seen: &[(PathBuf, Stamp)], now: &[(PathBuf, Stamp)]) -> bool {
    let outside = |stamp: &Stamp| stamp.map(|look| (look.length, look.modified));
    seen.len() == now.len()
        && seen.iter().zip(now).all(|((path, one), (other_path, other))| {
            path == other_path && outside(one) == outside(other)
        })
}

/// The digest of all that the files hold, each up to the length that it had.
fn digest(looks: &[(PathBuf, Stamp)]) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    for (path, look) in looks {
        hash.update(path.as_os_str().as_encoded_bytes());
        let Some(look) = look else {
            hash.update([0]);
            continue;
        };
        hash.update([1]);
        hash.update(look.length.to_le_bytes());
        check_regular(path)?;
        let mut file = File::open(path)?.take(look.length);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hash.update(buffer.get(..read).unwrap_or_default()),
            }
        }
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, SystemTime};

    use super::{Fingerprint, stamp};

    /// A folder with the files `a` and `b`, of the same length and time.
    fn two_files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (path, text) in [(&path, "one"), (&other, "two")] {
            std::fs::write(path, text).unwrap();
            std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        (folder, path, other)
    }

    #[test]
    fn a_file_of_the_same_length_and_time_is_another_one() {
        let (_folder, path, other) = two_files();
        let (before, read) = (stamp(&path), Fingerprint::of_file(path.clone(), None));
        read.note_contents();
        assert_eq!(stamp(&path), before);
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(&path), before);
        assert_eq!(stamp(&other), None);
        assert_ne!(Fingerprint::of_file(path, Some(&read)), read);
    }

    #[test]
    fn what_holds_the_same_is_the_same_wherever_it_lies() {
        let (folder, path, other) = two_files();
        let unread = Fingerprint::of_file(path.clone(), None);
        let read = Fingerprint::of_file(path.clone(), None);
        read.note_contents();
        std::fs::hard_link(&path, folder.path().join("backup")).unwrap();
        assert_ne!(Fingerprint::of_file(path.clone(), Some(&unread)), unread, "nothing to go by");
        let linked = Fingerprint::of_file(path.clone(), Some(&read));
        assert_eq!(linked, read);
        // The same bytes in another inode, and with it another one since.
        std::fs::write(&other, "one").unwrap();
        let time = path.metadata().unwrap().modified().unwrap();
        std::fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(Fingerprint::of_file(path.clone(), Some(&linked)), linked);
        std::fs::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(Fingerprint::of_file(path.clone(), Some(&linked)), linked);
        std::fs::remove_file(&path).unwrap();
        assert_ne!(Fingerprint::of_file(path, Some(&linked)), linked);
    }
}
