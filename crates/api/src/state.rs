//! What every handler can reach: the use cases, the keys and the settings of this crate. Cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use pentimento_service::{KeyRing, Service};
use url::Url;

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

/// The settings of the HTTP side.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The address under which callers reach us; the start of every link. Without it the `Host` header is used.
    pub public_url: Option<Url>,
    /// Whether `X-Forwarded-Proto` and `X-Forwarded-Host` are believed. Only behind a proxy that sets them.
    pub trust_forwarded: bool,
    /// The largest body that is read, in bytes. A 30 MB picture is 40 MB in base64.
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
        }
    }
}

/// Shared by all handlers.
#[derive(Clone, Debug)]
pub struct AppState {
    pub(crate) service: Service,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) config: Arc<ApiConfig>,
}

impl AppState {
    /// Puts the parts together.
    #[must_use]
    pub fn new(service: Service, keys: KeyRing, config: ApiConfig) -> Self {
        Self {
            service,
            keys: Arc::new(keys),
            config: Arc::new(config),
        }
    }
}
