//! Where a job comes from: the id of the call that brings it, and the trace that the call belongs to.

use axum::http::HeaderMap;
use axum::http::request::Parts;
use pentimento_service::Traces;
use pentimento_types::JobOrigin;
use tracing::Span;

use crate::middleware::RequestId;

const TRACEPARENT: &str = "traceparent";

/// To be asked inside the span of the call.
pub(crate) fn origin_of(parts: &Parts, traces: Traces) -> JobOrigin {
    let request_id = parts.extensions.get::<RequestId>();
    // The call's own span stands between the caller's and the job's, where there is one.
    let own = traces.traceparent(&Span::current());
    JobOrigin {
        request_id: request_id.map_or_else(String::new, |id| id.as_str().to_owned()),
        traceparent: own.or_else(|| traceparent(&parts.headers).map(str::to_owned)),
    }
}

/// The caller's `traceparent`, when it is one: `00-` 32 digits `-` 16 digits `-` 2 digits, neither id all zeros
/// (W3C Trace Context, section 3.2.2). Later versions begin with the same, and may go on behind it.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let known = text.get(..55)?;
    let mut parts = known.split('-');
    let mut digits = |count: usize| {
        let part = parts.next()?;
        let legal = part
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == count && legal).then_some(part)
    };
    let (version, trace, parent, _flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
    let has_more = text.len() > known.len();
    let continued = version != "00" && text.as_bytes().get(55) == Some(&b'-');
    let is_zero = |id: &str| id.bytes().all(|digit| digit == b'0');
    let legal = version != "ff" && !is_zero(trace) && !is_zero(parent) && (!has_more || continued);
    legal.then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_one() {
        let read = |text: &'static str| {
            let headers = [(TRACEPARENT.parse().unwrap(), text.parse().unwrap())];
            traceparent(&headers.into_iter().collect()).map(str::to_owned)
        };
        const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(GOOD).as_deref(), Some(GOOD));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(read(later).as_deref(), Some(later));
        let longer = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be";
        assert_eq!(read(longer).as_deref(), Some(later));
        for bad in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0\"",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
