//! Who calls: the `Authorization` header, as OpenAI's clients send it.
//!
//! Invariant: a handler gets a [`Caller`] only through this extractor, so no path leads around the check.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use pentimento_service::RateCaller;
use pentimento_types::ApiKeyId;

use super::error::OpenAiError;
use crate::access::{Denied, admit};
use crate::client_address::client_address;
use crate::{AppState, bearer};

/// The owner of the key that was sent; the anonymous one when no keys are configured.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) owner: ApiKeyId,
    /// The same, told apart from others also where all have one owner.
    pub(super) who: RateCaller,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = OpenAiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, OpenAiError> {
        match admit(state, parts, bearer::secret(&parts.headers)) {
            Ok(grant) => {
                let address = client_address(&parts.extensions, &parts.headers, state.config.trust_forwarded);
                Ok(Self {
                    who: RateCaller::of_owner(&grant.owner, address),
                    owner: grant.owner,
                })
            }
            Err(Denied::MissingKey) => Err(OpenAiError::MissingKey),
            Err(Denied::WrongKey) => Err(OpenAiError::WrongKey),
            Err(Denied::Fault(fault)) => Err(fault.into()),
        }
    }
}
