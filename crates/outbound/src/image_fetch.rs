//! One picture's bytes from a caller's URL. Whether they are a picture is the decoder's question, by its magic.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Destination, FetchLimits, GuardedClient, OutboundError, UrlProblem};

/// Fetches input pictures and masks.
#[derive(Clone, Debug)]
pub struct ImageFetcher {
    client: Arc<GuardedClient>,
    limits: FetchLimits,
}

impl ImageFetcher {
    /// Fetches through `client`, within `limits`.
    #[must_use]
    pub const fn new(client: Arc<GuardedClient>, limits: FetchLimits) -> Self {
        Self { client, limits }
    }

    /// Reads a URL without touching the network, so that a bad one is refused before a job exists.
    ///
    /// # Errors
    /// When it breaks a rule that depends on its text alone.
    pub fn check(&self, url: &str) -> Result<(), UrlProblem> {
        Destination::parse(url, self.client.guard()).map(drop)
    }

    /// The bytes at `url`.
    ///
    /// # Errors
    /// When the address is refused or unreachable, answers with anything but a success, or goes beyond the limits.
    /// The error's text may be shown; its chain of causes is for the log. Neither holds the URL, which is often signed.
    pub async fn fetch(&self, url: &str) -> Result<Bytes, OutboundError> {
        let reply = self.client.get(url, &self.limits).await?;
        if (200..300).contains(&reply.status) {
            Ok(reply.body)
        } else {
            Err(OutboundError::Status { status: reply.status })
        }
    }
}
