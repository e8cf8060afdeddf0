//! One webhook to its receiver: a message with the headers of the Standard Webhooks specification (1.0), signed so that the
//! receiver can tell that it is ours, unchanged and fresh.
//!
//! Source: standard-webhooks/standard-webhooks, `spec/standard-webhooks.md`. What is signed is `id.timestamp.body` with
//! HMAC-SHA256, and the published crate does it.

use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderValue};
use pentimento_types::describe_chain;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

use crate::{Destination, FetchLimits, GuardedClient, OutboundError};

/// What stands before a secret in base64.
const PREFIX: &str = "whsec_";
/// The specification's bounds of a secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// "Gone": the receiver does not want any more of it.
const GONE: u16 = 410;
/// "Too many requests".
const TOO_MANY: u16 = 429;

/// What webhooks are signed with: 24 to 64 bytes. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// A secret of 32 bytes.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(secret.to_vec())
    }

    /// As a receiver's library takes it: `whsec_` and base64.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl FromStr for WebhookSecret {
    type Err = String;

    // The text is never part of the message.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let bytes = text
            .strip_prefix(PREFIX)
            .and_then(|text| STANDARD.decode(text).ok());
        bytes
            .filter(|bytes| SECRET_BYTES.contains(&bytes.len()))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "a webhook secret is {PREFIX} and the base64 of {} to {} random bytes, with its padding",
                    SECRET_BYTES.start(),
                    SECRET_BYTES.end()
                )
            })
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookMessage {
    /// By which the receiver knows a message that it has already.
    pub id: String,
    /// When this sending begins; part of what is signed, so that an old one cannot be sent again by somebody else.
    pub sent_at: SystemTime,
    /// JSON.
    pub body: Bytes,
}

/// Why a receiver does not have a message. `problem` is short, may be shown to whoever owns the job, and holds nothing of the
/// receiver's answer but its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// Why.
    pub problem: String,
    /// For the log: what lies behind it.
    pub cause: String,
    /// The receiver has said that it wants no more of it (410).
    pub is_gone: bool,
    /// Whether the receiver is there at all: it has answered, and not that it is out of order or asked too often.
    pub is_well: bool,
    /// When it wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// Sends webhooks through the guarded client. Clones share it.
#[derive(Clone)]
pub struct WebhookSender {
    client: Arc<GuardedClient>,
    signer: Arc<RwLock<Arc<Webhook>>>,
    limits: FetchLimits,
}

impl WebhookSender {
    /// Sends through `client`, which should serve nothing else: receivers that are slow then delay no pictures.
    #[must_use]
    pub fn new(client: Arc<GuardedClient>, secret: &WebhookSecret) -> Self {
        // An answer within 30 seconds; "HTTP timeouts" of the specification has 15 to 30.
        let limits = FetchLimits {
            answer: Duration::from_secs(30),
            ..FetchLimits::with_max_bytes(0)
        };
        Self {
            client,
            signer: Arc::new(RwLock::new(signer_of(secret))),
            limits,
        }
    }

    /// Signs with another secret from now on.
    pub fn replace_secret(&self, secret: &WebhookSecret) {
        *self.signer.write().unwrap_or_else(PoisonError::into_inner) = signer_of(secret);
    }

    /// The most that a sending takes, with the wait for its turn.
    #[must_use]
    pub fn longest(&self) -> Duration {
        2 * self.limits.total
    }

    /// Reads an address without touching the network, and returns it in its plain form, so that one that will never be
    /// reached is refused before a job exists.
    ///
    /// # Errors
    /// Why it is refused; may be shown.
    pub fn check(&self, url: &str) -> Result<String, String> {
        let guard = self.client.guard();
        let destination = Destination::parse(url, guard).map_err(|problem| problem.to_string())?;
        destination
            .check_host(guard)
            .map_err(|_| "it is not an address on the public internet".to_owned())?;
        Ok(destination.to_string())
    }

    /// Hands the message over. Any status of 200 to 299 within 30 seconds means that the receiver has it; redirects are not
    /// followed, and no body is read.
    ///
    /// # Errors
    /// Why the receiver does not have it, or may not have it.
    pub async fn send(&self, url: &str, message: &WebhookMessage) -> Result<(), NotTaken> {
        let not_sent = |cause: String| NotTaken {
            problem: "the message could not be made".to_owned(),
            cause,
            is_gone: false,
            is_well: true,
            retry_after: None,
        };
        let headers = self.headers(message).map_err(not_sent)?;
        let sent = self
            .client
            .post(url, (headers, message.body.clone()), &self.limits)
            .await;
        let reply = sent.map_err(|error| NotTaken {
            problem: problem_of(&error),
            cause: describe_chain(&error),
            is_gone: false,
            is_well: matches!(error, OutboundError::Busy),
            retry_after: None,
        })?;
        if (200..300).contains(&reply.status) {
            return Ok(());
        }
        let problem = format!("the receiver answered with status {}", reply.status);
        Err(NotTaken {
            cause: problem.clone(),
            problem,
            is_gone: reply.status == GONE,
            is_well: reply.status < 500 && reply.status != TOO_MANY,
            retry_after: reply.retry_after,
        })
    }

    fn headers(&self, message: &WebhookMessage) -> Result<HeaderMap, String> {
        let since = message.sent_at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        let signer = Arc::clone(&self.signer.read().unwrap_or_else(PoisonError::into_inner));
        let signed = signer.sign(&message.id, seconds.cast_signed(), &message.body);
        let signature = signed.map_err(|error| error.to_string())?;
        let header = |name: &'static str, value: String| {
            let value =
                HeaderValue::try_from(value).map_err(|error: InvalidHeaderValue| error.to_string())?;
            Ok::<_, String>((HeaderName::from_static(name), value))
        };
        Ok([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            header(HEADER_WEBHOOK_ID, message.id.clone())?,
            header(HEADER_WEBHOOK_TIMESTAMP, seconds.to_string())?,
            header(HEADER_WEBHOOK_SIGNATURE, signature)?,
        ]
        .into_iter()
        .collect())
    }
}

fn signer_of(secret: &WebhookSecret) -> Arc<Webhook> {
    Arc::new(Webhook::from_bytes(secret.0.clone()).expect("it takes a key of any length"))
}

impl std::fmt::Debug for WebhookSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSender")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// As the client's own text, in which the receiver is a server with a file.
fn problem_of(error: &OutboundError) -> String {
    if matches!(error, OutboundError::Busy) {
        "too many webhooks are being sent at this moment".to_owned()
    } else if matches!(error, OutboundError::TimedOut) {
        "the receiver took too long".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AddressGuard;

    fn sender(guard: AddressGuard) -> WebhookSender {
        WebhookSender::new(Arc::new(GuardedClient::new(guard)), &WebhookSecret::new([7; 32]))
    }

    #[test]
    fn a_secret_is_written_as_receivers_read_it_and_never_shown_by_accident() {
        let secret = WebhookSecret::new([7; 32]);
        let text = secret.expose();
        assert_eq!(text, "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert_eq!(text.parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "[redacted]");
        for bad in [
            "",
            "whsec_",
            "whsec_BwcH",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "whsec_!",
        ] {
            let refused = bad.parse::<WebhookSecret>().unwrap_err();
            assert!(refused.contains("24 to 64"), "{bad}");
        }
    }

    /// The example of the specification's reference libraries (`tests/webhook.rs` of the crate, `test_webhooks.py`).
    #[test]
    fn the_signature_is_that_of_the_published_example() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let sender = WebhookSender::new(Arc::new(GuardedClient::new(AddressGuard::public_only())), &secret);
        let message = WebhookMessage {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            sent_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_265_330),
            body: Bytes::from_static(b"{\"test\": 2432232314}"),
        };
        let headers = sender.headers(&message).unwrap();
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(
            headers["webhook-signature"],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn an_address_that_will_never_be_reached_is_refused_at_once() {
        let public = sender(AddressGuard::public_only());
        for (url, problem) in [
            ("http://127.0.0.1:8000/", "public"),
            ("http://2130706433/", "public"),
            ("https://localhost/hook", "public"),
            ("https://redis/hook", "public"),
            ("http://[fd00::1]/", "public"),
            ("http://169.254.169.254/latest", "public"),
            ("ftp://example.com/", "http"),
            ("https://a:b@example.com/", "password"),
            ("https://example.com:22/", "port 22"),
            ("example.com", "absolute"),
        ] {
            let refused = public.check(url).unwrap_err();
            assert!(refused.contains(problem), "{url}: {refused}");
        }
        assert_eq!(
            public.check("https://EXAMPLE.com:443/hook?a=b#c"),
            Ok("https://example.com/hook?a=b".to_owned())
        );
        let private = sender(AddressGuard::allowing_private());
        assert!(private.check("http://127.0.0.1:8000/").is_ok());
        assert!(private.check("http://169.254.169.254/latest").is_err());
    }
}
