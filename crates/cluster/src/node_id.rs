//! Which machine of the cluster this is: a name that is made once and kept, so that a node finds its jobs again after a start.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// Bytes of the longest name.
const LONGEST: usize = 48;

/// A node of a cluster. Lower case letters, digits and `-` only, so that it can be a part of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

/// A name that no node can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no node: use 1 to {LONGEST} lower case letters, digits and \"-\"")]
pub struct NodeIdRefused(String);

impl NodeId {
    /// The name in this file, which is made with a random one where it is missing, or empty because a machine went down while
    /// it was made.
    ///
    /// # Errors
    /// What keeps the file from being read or written; a file that holds something else is `InvalidData`.
    pub fn in_file(path: &Path) -> io::Result<Self> {
        match fs_err::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => {
                let name = text.trim().parse();
                name.map_err(|refused: NodeIdRefused| io::Error::new(io::ErrorKind::InvalidData, refused))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => {
                let made = Self::random();
                made.write_to(path)?;
                Ok(made)
            }
        }
    }

    /// In one step, so that the file holds a whole name or is not there.
    fn write_to(&self, path: &Path) -> io::Result<()> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut draft = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(draft, "{self}")?;
        draft.as_file().sync_all()?;
        draft.persist(path).map(drop).map_err(|error| error.error)
    }

    /// One that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("n{:016x}", rand::rng().random::<u64>()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdRefused;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(is_plain) {
            // Of a hostile file no more than a line is repeated.
            return Err(NodeIdRefused(text.chars().take(LONGEST).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdRefused;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node-id");
        let made = NodeId::in_file(&path).unwrap();
        assert_eq!(NodeId::in_file(&path).unwrap(), made);
        // As a crash between making and writing leaves it.
        fs_err::write(&path, "").unwrap();
        let again = NodeId::in_file(&path).unwrap();
        assert_eq!(NodeId::in_file(&path).unwrap(), again);
        fs_err::write(&path, "a.b >\n").unwrap();
        let refused = NodeId::in_file(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_would_be_more_than_one_part_of_a_subject_is_no_name() {
        for text in ["", "a.b", "a b", "*", ">", "A", "é", &"a".repeat(49)] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
        assert!("gpu-2".parse::<NodeId>().is_ok());
        assert!(serde_json::from_str::<NodeId>("\"a.*\"").is_err());
    }
}
