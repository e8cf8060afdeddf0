//! The closed list of error kinds and the one way to print an error with its causes.

use std::error::Error;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Why something failed, in words that know no protocol. Each dialect maps every kind to its own status and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The caller sent something that can never work.
    InvalidInput,
    /// No key, where one is needed.
    Unauthenticated,
    /// A key that is not known or may not do this.
    Forbidden,
    /// The named thing does not exist.
    NotFound,
    /// The thing exists in a state that does not allow this.
    Conflict,
    /// More bytes or pixels than a limit allows.
    TooLarge,
    /// A content filter refused it.
    RejectedContent,
    /// The caller's own allowance is used up.
    QuotaExceeded,
    /// The server has no room now.
    Overloaded,
    /// It took longer than its deadline.
    DeadlineExceeded,
    /// The caller cancelled it.
    Cancelled,
    /// The server is starting, stopping, or a part of it is away.
    Unavailable,
    /// A model of this server is damaged or of a kind that it does not read, until its operator changes the files.
    BadModel,
    /// The device has too little memory for this job.
    OutOfDeviceMemory,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without a change. The only source of retry decisions.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Overloaded | Self::DeadlineExceeded | Self::Unavailable | Self::Internal => true,
            Self::InvalidInput
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::TooLarge
            | Self::RejectedContent
            | Self::QuotaExceeded
            | Self::Cancelled
            | Self::BadModel
            | Self::OutOfDeviceMemory => false,
        }
    }

    /// A stable lower-case name for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::RejectedContent => "rejected_content",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::BadModel => "bad_model",
            Self::OutOfDeviceMemory => "out_of_device_memory",
            Self::Internal => "internal",
        }
    }
}

/// Every error of every crate says which kind it is.
pub trait HasKind: Error {
    /// The kind of this error.
    fn kind(&self) -> ErrorKind;
}

/// An error and all its causes on one line, `a: b: c`. Our `Display` texts never repeat their source.
#[must_use]
pub fn describe_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
