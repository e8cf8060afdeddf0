//! Whether a caller may call: its key, then its rate. Every door comes through here, so that no dialect is a way around.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method};
use pentimento_service::{KeyGrant, KeyRing, RateBucket, RateCaller};

use crate::AppState;
use crate::client_address::client_address;
use crate::edge_fault::EdgeFault;

/// Why a call is not taken; each dialect has its own words for it.
#[derive(Debug)]
pub(crate) enum Denied {
    /// Keys are asked for and none was sent.
    MissingKey,
    /// The key is none of ours, or not any more.
    WrongKey,
    /// Too many calls.
    Fault(EdgeFault),
}

impl From<EdgeFault> for Denied {
    fn from(fault: EdgeFault) -> Self {
        Self::Fault(fault)
    }
}

/// Takes a call out of its caller's bucket, once, however often the caller is recognised on the way.
#[derive(Debug)]
pub(crate) struct Gate {
    address: IpAddr,
    bucket: RateBucket,
    counted: Option<RateCaller>,
}

impl Gate {
    /// For one call.
    pub(crate) fn new(
        app: &AppState,
        extensions: &Extensions,
        headers: &HeaderMap,
        bucket: RateBucket,
    ) -> Self {
        Self {
            address: client_address(extensions, headers, app.config.trust_forwarded),
            bucket,
            counted: None,
        }
    }

    /// The caller is known.
    pub(crate) fn count(&mut self, app: &AppState, grant: &KeyGrant) -> Result<(), EdgeFault> {
        let caller = RateCaller::of(grant, self.address);
        if self.counted.as_ref() == Some(&caller) {
            return Ok(());
        }
        let taken = app
            .rates
            .take(&caller, self.bucket, grant.limits.requests_per_minute);
        taken.map_err(|exceeded| {
            app.metrics.rate_limited(&exceeded);
            EdgeFault::TooOften(exceeded)
        })?;
        self.counted = Some(caller);
        Ok(())
    }
}

/// What a caller may do whose key, if any, stands in the head of the call.
pub(crate) fn admit(app: &AppState, parts: &Parts, secret: Option<&str>) -> Result<KeyGrant, Denied> {
    let grant = if app.keys.is_open() {
        KeyRing::anonymous()
    } else {
        let secret = secret.ok_or(Denied::MissingKey)?;
        app.keys.check(secret).ok_or(Denied::WrongKey)?
    };
    let bucket = if [Method::GET, Method::HEAD].contains(&parts.method) {
        RateBucket::Polls
    } else {
        RateBucket::Calls
    };
    let mut gate = Gate::new(app, &parts.extensions, &parts.headers, bucket);
    gate.count(app, &grant)?;
    Ok(grant)
}

/// A link needs no key, and is counted for the address that opens it.
pub(crate) fn admit_link(
    app: &AppState,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<(), EdgeFault> {
    Gate::new(app, extensions, headers, RateBucket::Polls).count(app, &KeyRing::anonymous())
}
