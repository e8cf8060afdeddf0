//! What can be wrong with a catalogue or with a name looked up in it.

use std::path::PathBuf;

use pentimento_types::{ErrorKind, HasKind};

use crate::ModelKind;

/// One fault in `models.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryFault {
    /// Line, counted from 1.
    pub line: usize,
    /// The `name` of the entry, where it has a readable one.
    pub entry: Option<String>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl std::fmt::Display for EntryFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(entry) = &self.entry {
            write!(f, ", model `{entry}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// An error of the catalogue. Only `NotFound` comes from a request; the others meet whoever starts the server.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file could not be read.
    #[error("cannot read the model catalogue {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is not right.
    #[error("the model catalogue {path} is not right: {}", join(faults))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every fault that was found, in the order of the lines.
        faults: Vec<EntryFault>,
    },
    /// No entry of that kind has this name.
    #[error("there is no {kind} named `{name}`")]
    NotFound {
        /// What was looked for.
        kind: ModelKind,
        /// The name as the caller sent it, shortened and without control characters.
        name: String,
        /// Up to three names that look like it, best first.
        nearest: Vec<String>,
    },
}

impl HasKind for CatalogError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unreadable { .. } | Self::Invalid { .. } => ErrorKind::Unavailable,
        }
    }
}

fn join(faults: &[EntryFault]) -> String {
    faults
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
