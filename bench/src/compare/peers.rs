//! The list of peers: a file that says how each is started.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, de};

use crate::error::BenchError;
use crate::question::Protocol;

/// A server of somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name, as one asks for it.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// How it can be asked.
    #[serde(deserialize_with = "protocols")]
    pub protocols: Vec<Protocol>,
    /// What installs it, from the repository's root.
    pub setup: String,
    /// The program, relative to the file's folder, and its first arguments.
    pub command: Vec<String>,
}

/// A file of peers.
#[derive(Debug, Clone)]
pub struct Peers {
    /// Where their commands run.
    pub(super) folder: PathBuf,
    /// The peers, in the file's order.
    pub peers: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    peer: Vec<Peer>,
}

impl Peers {
    /// Reads `path`.
    ///
    /// # Errors
    /// The file cannot be read or is none of peers, or a peer has no command.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let wrong = |why: String| BenchError::Options(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let listed: Listed =
            toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
        if let Some(peer) = listed.peer.iter().find(|peer| peer.command.is_empty()) {
            return Err(wrong(format!("peer {:?} has no command", peer.name)));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        let folder = folder.map_err(|error| wrong(error.to_string()))?;
        Ok(Self { folder, peers: listed.peer })
    }

    /// Only those that `names` names, in its order; all where it names none.
    ///
    /// # Errors
    /// A name that is none of theirs.
    pub fn only(mut self, names: &[String]) -> Result<Self, BenchError> {
        if names.is_empty() {
            return Ok(self);
        }
        let named = |name: &String| {
            let known = self.peers.iter().find(|peer| peer.name == *name);
            known.cloned().ok_or_else(|| {
                let all: Vec<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
                BenchError::Options(format!("no peer is {name:?}; there are {}", all.join(", ")))
            })
        };
        self.peers = names.iter().map(named).collect::<Result<_, _>>()?;
        Ok(self)
    }
}

fn protocols<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<Protocol>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.iter().map(|name| name.parse().map_err(de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Peers;
    use crate::question::Protocol;

    #[test]
    fn the_repositorys_own_peers_are_understood() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/peers.toml");
        let peers = Peers::read(&path).unwrap();
        let names: Vec<&str> = peers.peers.iter().map(|peer| peer.name.as_str()).collect();
        assert_eq!(names, ["fastapi", "kserve", "mlserver", "triton", "furnace"]);
        assert_eq!(peers.peers[2].protocols, [Protocol::V2, Protocol::Grpc]);
        let some = peers.clone().only(&["triton".to_owned(), "kserve".to_owned()]).unwrap();
        assert_eq!(
            some.peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(),
            ["triton", "kserve"]
        );
        let error = peers.only(&["tritn".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("tritn") && error.contains("mlserver"), "{error}");
    }

    #[test]
    fn files_that_list_no_peers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.toml");
        let peer = "[[peer]]\nname = 'a'\ntitle = 'A'\nsetup = 'x'\n";
        for (text, says) in [
            ("peer = 3", "peer"),
            (&format!("{peer}protocols = ['v3']\ncommand = ['a']"), "v2-binary"),
            (&format!("{peer}protocols = ['v2']\ncommand = []"), "no command"),
            (&format!("{peer}protocols = ['v2']\ncommand = ['a']\nport = 1"), "port"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Peers::read(&path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("peers.toml"), "{error}");
        }
        assert!(Peers::read(&folder.path().join("none")).is_err());
    }
}
