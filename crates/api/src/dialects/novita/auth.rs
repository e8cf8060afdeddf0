//! Who calls: the `Authorization` header with or without the word `Bearer`.
//!
//! Invariant: a handler gets a [`Caller`] only through this extractor, so no path leads around the check.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use pentimento_types::ApiKeyId;

use super::error::NovitaError;
use crate::access::{Denied, admit};
use crate::{AppState, bearer};

/// The owner of the key that was sent; the anonymous one when no keys are configured.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) ApiKeyId);

impl FromRequestParts<AppState> for Caller {
    type Rejection = NovitaError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, NovitaError> {
        match admit(state, parts, bearer::secret(&parts.headers)) {
            Ok(grant) => Ok(Self(grant.owner)),
            Err(Denied::MissingKey) => Err(NovitaError::MissingKey),
            Err(Denied::WrongKey) => Err(NovitaError::WrongKey),
            Err(Denied::Fault(fault)) => Err(fault.into()),
        }
    }
}
