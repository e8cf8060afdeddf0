//! The settings of this crate, with the values of a server that was told nothing.

use std::time::Duration;

use axum::http::HeaderValue;
use url::Url;

use crate::dialects::json::MAX_COPIES;

/// Who may call from a web page of another origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every page, as both vendors allow. The caller still needs a key where keys are configured.
    #[default]
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
            hold: Duration::from_secs(25),
            link_life: Duration::from_secs(24 * 3600),
        }
    }
}

/// The body itself, and what the costliest parser makes of it.
pub(crate) const BODY_PLACES: usize = 1 + MAX_COPIES;

/// The settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The address under which callers reach us; the start of every link. Without it the `Host` header is used.
    pub public_url: Option<Url>,
    /// Whether `X-Forwarded-Proto` and `X-Forwarded-Host` are believed. Only behind a proxy that sets them.
    pub trust_forwarded: bool,
    /// The largest body that is read, in bytes; less where memory is short. A 30 MB image is 40 MB in base64.
    pub max_body_bytes: usize,
    /// How long one body may take altogether.
    pub body_timeout: Duration,
    /// How long a body may stand still.
    pub body_idle_timeout: Duration,
    /// How long the head of a request may take, from the moment the connection is free.
    pub header_timeout: Duration,
    /// How many connections may be open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Which web pages may call.
    pub cors_origins: CorsOrigins,
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
            max_connections: 1024,
            cors_origins: CorsOrigins::Any,
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
