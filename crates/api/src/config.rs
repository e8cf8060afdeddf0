//! The settings of this crate, with the values of a server that was told nothing.

use std::time::Duration;

use axum::http::HeaderValue;
use pentimento_service::RateConfig;
use url::Url;

use crate::dialects::json::MAX_COPIES;

/// Who may call from a web page of another origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every page where callers need a key, as both vendors allow; without keys the pages of this machine's own names.
    #[default]
    ByKeys,
    /// Every page, also without keys.
    Any,
    /// These origins only, `https://example.com` for example.
    Only(Vec<HeaderValue>),
    /// No page of another origin.
    None,
}

/// The settings of ModelsLab's dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelsLabConfig {
    /// Whether errors have the statuses of the vendor's newest pages (400, 401, 429, 500, 503). Without it they are 200
    /// with `"status": "error"`, which is what most clients look at.
    pub strict_http_status: bool,
    /// Whether `base64: "yes"` puts the text into the reply. Without it the reply has links to text files, as the vendor.
    pub inline_base64: bool,
    /// Whether words are added to the prompts of a call that does not say so itself, as the vendor does.
    pub enhance_prompt: bool,
    /// How long a call waits for its images before it answers `processing`. The Go and PHP clients give up after 30 s.
    pub hold: Duration,
    /// Life of a link; at most as long as the service keeps images.
    pub link_life: Duration,
}

impl ModelsLabConfig {
    /// The settings of a server that was told nothing.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a component's configuration is passed explicitly"
    )]
    pub const fn new() -> Self {
        Self {
            strict_http_status: false,
            inline_base64: false,
            enhance_prompt: true,
            hold: Duration::from_secs(25),
            link_life: Duration::from_secs(24 * 3600),
        }
    }
}

/// How slow a caller may be, sending a body or reading a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeastSpeed {
    /// On average.
    pub bytes_per_second: u32,
    /// The time before the average counts.
    pub grace: Duration,
}

impl LeastSpeed {
    /// The most time that a body may have taken when so many bytes of it are there.
    #[must_use]
    pub(crate) fn time_for(&self, bytes: usize) -> Duration {
        self.grace + self.time_earned(bytes)
    }

    /// The time that so many bytes take at this speed.
    #[must_use]
    pub(crate) fn time_earned(&self, bytes: usize) -> Duration {
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / u64::from(self.bytes_per_second.max(1));
        Duration::from_nanos(nanos)
    }
}

/// The body itself, and what the costliest parser makes of it.
pub(crate) const BODY_PLACES: usize = 1 + MAX_COPIES;

/// The settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The address under which callers reach us; the start of every link. Without it the `Host` header is used.
    pub public_url: Option<Url>,
    /// Whether `X-Forwarded-Proto`, `X-Forwarded-Host` and the end of `X-Forwarded-For` are believed. Only behind a proxy
    /// that sets them.
    pub trust_forwarded: bool,
    /// The largest body that is read, in bytes; less where memory is short. A 30 MB image is 40 MB in base64.
    pub max_body_bytes: usize,
    /// How long one body may take altogether.
    pub body_timeout: Duration,
    /// How long a body may stand still.
    pub body_idle_timeout: Duration,
    /// How long the head of a request may take, from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may rest between two requests. Longer than the minute of most load balancers, which would
    /// send a request into a connection that is just being closed.
    pub idle_timeout: Duration,
    /// How slowly a body may arrive, and a reply be read.
    pub least_speed: LeastSpeed,
    /// How many connections may be open at once. Beyond it the idle one that has rested longest is closed, and when none
    /// is idle the new one is refused.
    pub max_connections: usize,
    /// How many of them may be from one address. Everybody behind a proxy has one address.
    pub max_connections_per_address: usize,
    /// Names in `Host` that are answered without keys, beside those of this machine and of `public_url`.
    pub allowed_hosts: Vec<String>,
    /// Which web pages may call.
    pub cors_origins: CorsOrigins,
    /// How often one caller may call, where its key does not say it.
    pub rates: RateConfig,
    /// ModelsLab's dialect.
    pub modelslab: ModelsLabConfig,
}

impl ApiConfig {
    /// The settings of a server that was told nothing.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a component's configuration is passed explicitly"
    )]
    pub const fn new() -> Self {
        Self {
            public_url: None,
            trust_forwarded: false,
            max_body_bytes: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(300),
            body_idle_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            least_speed: LeastSpeed {
                bytes_per_second: 1024,
                grace: Duration::from_secs(30),
            },
            max_connections: 1024,
            max_connections_per_address: 512,
            allowed_hosts: Vec::new(),
            cors_origins: CorsOrigins::ByKeys,
            rates: RateConfig::new(),
            modelslab: ModelsLabConfig::new(),
        }
    }

    /// Bytes of memory that the largest body takes while it is parsed. With less room for all bodies together, smaller ones
    /// are refused as too large.
    #[must_use]
    pub const fn largest_body_memory(&self) -> u64 {
        (self.max_body_bytes as u64).saturating_mul(BODY_PLACES as u64)
    }
}
