//! What can go wrong on the way to a caller's address. Texts are for the caller, causes are for the log.

use std::io;

use pentimento_types::{ErrorKind, HasKind};

use crate::{Refusal, UrlProblem};

/// Why nothing came from an address. `Display` may be shown to the caller.
///
/// Everything before the first complete line of an answer is one and the same [`OutboundError::Unreachable`],
/// so that the text never tells what listens where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// The address can be refused by reading it.
    #[error("the URL is not allowed: {problem}")]
    Url {
        /// Which rule it breaks.
        problem: UrlProblem,
    },
    /// Refused by the guard, unknown to the name server, or no answer in HTTP.
    #[error("the address could not be reached")]
    Unreachable(#[source] UnreachableCause),
    /// The server answered, and it was no success.
    #[error("the server answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// A redirect to where we do not follow.
    #[error("the server redirects to an address that is not allowed: {problem}")]
    Redirect {
        /// Which rule the new address breaks.
        problem: UrlProblem,
    },
    /// A chain of redirects without end.
    #[error("the server redirects more than {limit} times")]
    TooManyRedirects {
        /// How many are followed.
        limit: u32,
    },
    /// More bytes than allowed, announced or sent.
    #[error("the file is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The body came too slowly, or the whole exchange took too long.
    #[error("the server took too long")]
    TimedOut,
    /// The connection ended before the body did.
    #[error("the server's answer broke off")]
    BrokenOff(#[source] hyper::Error),
    /// A compression that was not asked for and is not unpacked here.
    #[error("the server's answer is compressed ({coding}), which was not asked for and is not read here")]
    Compressed {
        /// Its name.
        coding: &'static str,
    },
    /// A body that is not of the compression that the server names.
    #[error("the server says that its answer is compressed ({coding}), and it cannot be unpacked")]
    NotUnpacked {
        /// Its name.
        coding: &'static str,
        /// What the unpacker says.
        #[source]
        source: io::Error,
    },
    /// Too many fetches are under way here.
    #[error("too many files are being fetched at this moment")]
    Busy,
}

/// What happened before an answer came. For the log only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnreachableCause {
    /// The guard refused the name or one of its addresses; nothing was sent.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The name server knows no address, or failed.
    #[error("the name could not be resolved")]
    Resolve(#[source] io::Error),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// No connection to any of its addresses.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The certificate is invalid, expired or another host's, or the handshake failed.
    #[error("no secure connection")]
    Tls(#[source] io::Error),
    /// What came back is not HTTP.
    #[error("no HTTP answer")]
    Http(#[source] hyper::Error),
    /// This part took longer than it may.
    #[error("{phase} took too long")]
    TimedOut {
        /// What was waited for.
        phase: &'static str,
    },
}

impl HasKind for OutboundError {
    /// The caller chose the address, so what it does is the caller's input: a slow or failing server of theirs is no
    /// fault of ours and does not count as one.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Busy => ErrorKind::Overloaded,
            Self::Url { .. }
            | Self::Unreachable(_)
            | Self::Status { .. }
            | Self::Redirect { .. }
            | Self::TooManyRedirects { .. }
            | Self::TimedOut
            | Self::BrokenOff(_)
            | Self::Compressed { .. }
            | Self::NotUnpacked { .. } => ErrorKind::InvalidInput,
        }
    }
}
