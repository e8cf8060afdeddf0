//! The start of every absolute link: from the configuration, or from the request itself.
//!
//! Invariant: what comes out is `scheme://authority[/path]` without a slash at the end, and holds nothing from a
//! header that is not a plain host name and port.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};

use crate::AppState;
use crate::config::ApiConfig;

/// The address under which this caller reaches us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl(String);

impl BaseUrl {
    /// `path` begins with a slash.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The address under which the caller of an earlier request reached us.
    pub(crate) const fn stored(text: String) -> Self {
        Self(text)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// To be stored.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn of(config: &ApiConfig, uri: &Uri, headers: &HeaderMap) -> Self {
        if let Some(url) = &config.public_url {
            return Self(url.as_str().trim_end_matches('/').to_owned());
        }
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = |name: &str| {
            let trusted = config.trust_forwarded.then(|| header(name)).flatten();
            // A chain of proxies appends; the first one is what the caller saw.
            trusted.and_then(|value| value.split(',').next()).map(str::trim)
        };
        let scheme = match forwarded("x-forwarded-proto") {
            Some("https") => "https",
            _ => "http",
        };
        let host = forwarded("x-forwarded-host")
            .or_else(|| header(HOST.as_str()))
            .or_else(|| uri.authority().map(|authority| authority.as_str()))
            .filter(|host| is_plain_host(host))
            .unwrap_or("localhost");
        Self(format!("{scheme}://{host}"))
    }
}

fn is_plain_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

impl FromRequestParts<AppState> for BaseUrl {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&state.config, &parts.uri, &parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(config: &ApiConfig, headers: &[(&'static str, &'static str)]) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        BaseUrl::of(config, &Uri::from_static("/v3/lcm-img2img"), &headers).join("/files/x")
    }

    #[test]
    fn links_begin_with_the_configured_address_or_the_host_header() {
        let mut config = ApiConfig::new();
        assert_eq!(
            base(&config, &[("host", "127.0.0.1:8080")]),
            "http://127.0.0.1:8080/files/x"
        );
        assert_eq!(base(&config, &[("host", "[::1]:80")]), "http://[::1]:80/files/x");
        assert_eq!(base(&config, &[]), "http://localhost/files/x");
        assert_eq!(
            base(&config, &[("host", "evil.com/<b>")]),
            "http://localhost/files/x"
        );
        config.public_url = Some("https://pictures.example/base/".parse().unwrap());
        assert_eq!(
            base(&config, &[("host", "127.0.0.1")]),
            "https://pictures.example/base/files/x"
        );
    }

    #[test]
    fn forwarded_headers_count_only_when_they_are_trusted() {
        let headers = [
            ("host", "inner:1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outer.example, b"),
        ];
        let mut config = ApiConfig::new();
        assert_eq!(base(&config, &headers), "http://inner:1/files/x");
        config.trust_forwarded = true;
        assert_eq!(base(&config, &headers), "https://outer.example/files/x");
    }
}
