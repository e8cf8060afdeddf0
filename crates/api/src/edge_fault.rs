//! What can go wrong with a call before a dialect has it, or around it: no such path, a body that does not arrive, a
//! panic. It belongs to nobody's dialect; each dialect, and our own shape, writes it in its own words.

use std::time::Duration;

use axum::http::StatusCode;
use pentimento_service::RateExceeded;
use pentimento_types::{ErrorKind, HasKind};

use crate::body::BodyError;

/// Why a call failed at the edge.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EdgeFault {
    /// No such path.
    #[error("there is no API at this path; see GET / for the list")]
    UnknownPath,
    /// The path exists for other methods.
    #[error("this path does not take that method; see the Allow header")]
    WrongMethod,
    /// The body did not arrive, or there is no room for it.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Without keys: a name of somebody else's, which a web page can make to lead here.
    #[error(
        "without a key this server answers to the names of this machine, and the Host header says {host:?}; list the \
         name with --allowed-hosts, or set a key"
    )]
    ForeignHost {
        /// What the header says.
        host: String,
    },
    /// Without keys: a web page from elsewhere.
    #[error(
        "without keys this server takes no calls from web pages of other sites, and this one is from {origin}; list its \
         origin with --cors-origins, or set a key"
    )]
    ForeignPage {
        /// What the header says.
        origin: String,
    },
    /// More calls than one key or one address may make.
    #[error(transparent)]
    TooOften(RateExceeded),
    /// A handler panicked; the text of the panic is for the log only.
    #[error("the server has a fault; it was logged")]
    Panicked {
        /// What the panic said.
        text: String,
    },
}

impl EdgeFault {
    /// The HTTP status that says the same. A dialect may have reasons for another one.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::ForeignHost { .. } | Self::ForeignPage { .. } => StatusCode::FORBIDDEN,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::NoRoom) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(BodyError::Broken | BodyError::Compressed { .. }) => StatusCode::BAD_REQUEST,
            Self::Panicked { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// For the log only.
    pub(crate) fn cause(&self) -> Option<String> {
        match self {
            Self::Panicked { text } => Some(text.clone()),
            Self::UnknownPath
            | Self::WrongMethod
            | Self::Body(_)
            | Self::ForeignHost { .. }
            | Self::ForeignPage { .. }
            | Self::TooOften(_) => None,
        }
    }

    /// When the same call may work, where that is known better than for any other.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(exceeded) => Some(exceeded.retry_after),
            Self::UnknownPath
            | Self::WrongMethod
            | Self::Body(_)
            | Self::ForeignHost { .. }
            | Self::ForeignPage { .. }
            | Self::Panicked { .. } => None,
        }
    }
}

impl HasKind for EdgeFault {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownPath | Self::WrongMethod => ErrorKind::NotFound,
            Self::ForeignHost { .. } | Self::ForeignPage { .. } => ErrorKind::Forbidden,
            Self::TooOften(_) => ErrorKind::QuotaExceeded,
            Self::Body(error) => error.kind(),
            Self::Panicked { .. } => ErrorKind::Internal,
        }
    }
}
