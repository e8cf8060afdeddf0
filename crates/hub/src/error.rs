//! Why a model could not be brought here. `Display` is safe to show to a caller: it names no path of this machine.

use std::path::PathBuf;

use pentimento_types::{ErrorKind, HasKind};

/// An error of the hub client.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no such repository, or it is private.
    #[error(
        "the hub does not show the repository {repo}: it does not exist, or it is private; check its name, or set HF_TOKEN \
         to a token that may read it"
    )]
    NoRepository {
        /// `owner/name`.
        repo: String,
    },
    /// Somebody has to accept a licence first.
    #[error(
        "the repository {repo} is gated: accept its licence on its page at the hub, and set HF_TOKEN to a token of that account"
    )]
    Gated {
        /// `owner/name`.
        repo: String,
    },
    /// The hub has taken it away.
    #[error("the hub has disabled the repository {repo}")]
    Disabled {
        /// `owner/name`.
        repo: String,
    },
    /// No such branch, tag or commit.
    #[error("the repository {repo} has no revision `{revision}`; check the part after the @ in its source")]
    NoRevision {
        /// `owner/name`.
        repo: String,
        /// As in the source.
        revision: String,
    },
    /// No such file.
    #[error("there is no file `{file}` at {place}; check the source in the model catalogue")]
    NoFile {
        /// The repository, or the host.
        place: String,
        /// Its path there.
        file: String,
    },
    /// Nothing in the repository is of the kind that the entry says.
    #[error("the repository {repo} has nothing that can be used as a {kind}: {problem}")]
    NothingToUse {
        /// `owner/name`.
        repo: String,
        /// The word of the catalogue.
        kind: &'static str,
        /// What is missing.
        problem: String,
    },
    /// The server must not use the network.
    #[error(
        "it is not in the cache, and the server is offline (HF_HUB_OFFLINE); fetch it with `pentimento models pull`, or put its \
         files in a folder and use that path as the source"
    )]
    Offline,
    /// It would not fit onto the disk.
    #[error(
        "{needed} bytes are missing, and the disk of the cache has room for {free}; free some space, or set HF_HUB_CACHE to a folder on another disk"
    )]
    DiskFull {
        /// Bytes still to be fetched.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// What has arrived is something else.
    #[error("`{file}` has the sha256 {found}, but {expected} was expected; the file was removed")]
    WrongSha256 {
        /// Its name.
        file: String,
        /// Of the catalogue or the hub.
        expected: String,
        /// Of what has arrived.
        found: String,
    },
    /// A file on this machine is not the one that the catalogue means.
    #[error(
        "its file has the sha256 {found}, but the catalogue expects {expected}; fetch it again or correct the entry"
    )]
    ChangedFile {
        /// Of the catalogue.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// Too few or too many bytes have arrived.
    #[error("`{file}` has {found} bytes, but {expected} were announced")]
    WrongSize {
        /// Its name.
        file: String,
        /// Announced.
        expected: u64,
        /// Arrived.
        found: u64,
    },
    /// Another status than any that has a meaning here.
    #[error("{host} answered with status {status}{}", said(message))]
    Status {
        /// Who answered.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The hub's own words, shortened.
        message: Option<String>,
    },
    /// The answer makes no sense.
    #[error("{host} answered something else than a hub: {problem}")]
    Nonsense {
        /// Who answered.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It cannot be reached, or the connection broke more often than it was tried again.
    #[error("{host} cannot be reached or breaks off")]
    Unreachable {
        /// Who.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Files could not be written or read.
    #[error("the server could not {what}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// Where, for the log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody has ended it.
    #[error("it was cancelled")]
    Cancelled,
    /// The client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
}

fn said(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |message| format!(" ({message})"))
}

impl HubError {
    pub(crate) fn disk(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { what, path, source }
    }

    /// Whether the same would fail again until somebody changes something.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::NoRepository { .. }
            | Self::Gated { .. }
            | Self::Disabled { .. }
            | Self::NoRevision { .. }
            | Self::NoFile { .. }
            | Self::NothingToUse { .. }
            | Self::Offline
            | Self::DiskFull { .. }
            | Self::WrongSha256 { .. }
            | Self::ChangedFile { .. }
            | Self::Client(_) => true,
            Self::WrongSize { .. }
            | Self::Status { .. }
            | Self::Nonsense { .. }
            | Self::Unreachable { .. }
            | Self::Disk { .. }
            | Self::Cancelled => false,
        }
    }
}

impl HasKind for HubError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingToUse { .. } | Self::WrongSha256 { .. } | Self::ChangedFile { .. } => {
                ErrorKind::BadModel
            }
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Client(_) => ErrorKind::Internal,
            Self::NoRepository { .. }
            | Self::Gated { .. }
            | Self::Disabled { .. }
            | Self::NoRevision { .. }
            | Self::NoFile { .. }
            | Self::Offline
            | Self::DiskFull { .. }
            | Self::WrongSize { .. }
            | Self::Status { .. }
            | Self::Nonsense { .. }
            | Self::Unreachable { .. }
            | Self::Disk { .. } => ErrorKind::Unavailable,
        }
    }
}
