//! Keeps web pages away from a server without keys. It listens on this machine only, but every page that its user visits
//! runs on this machine too: it may send requests here, and with a name of its own that leads here (DNS rebinding) it
//! may read the replies.
//!
//! Programs send none of these headers but `Host`, and notice nothing. Signed links are let through: the signature is the
//! right, and a person opens them from any page. The metrics of the listener for health checks need no key either, so they
//! are kept in the same way whether there are keys or not.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use pentimento_service::KeyRing;
use url::Url;

use crate::config::{ApiConfig, CorsOrigins};
use crate::edge_fault::EdgeFault;
use crate::shape::Shape;

/// Which names and which pages may call.
#[derive(Clone, Debug)]
pub(crate) struct Visitors {
    hosts: Vec<String>,
    /// Whether any address is a right host. A page cannot make an address lead elsewhere, only a name.
    any_address: bool,
    origins: CorsOrigins,
}

impl Visitors {
    pub(crate) fn of(config: &ApiConfig) -> Self {
        let public = config.public_url.as_ref().and_then(Url::host_str);
        let names = config.allowed_hosts.iter().map(String::as_str).chain(public);
        Self {
            hosts: names.map(plain).collect(),
            any_address: false,
            origins: config.cors_origins.clone(),
        }
    }

    /// The same for a listener that others may reach by an address, such as a program that collects metrics.
    pub(crate) fn of_admin(config: &ApiConfig) -> Self {
        Self {
            any_address: true,
            ..Self::of(config)
        }
    }

    /// `name` or `name:port`.
    fn allow_host(&self, authority: &str) -> bool {
        let name = authority.parse::<Authority>().ok();
        // A name in front of `@` would be another program's idea of the host.
        name.is_some_and(|name| {
            let host = name.host();
            let is_allowed = self.allow_name(host) || (self.any_address && address(host).is_some());
            is_allowed && !authority.contains('@')
        })
    }

    /// What both a host and the origin of a page may be. Not any address: a page may well come from one.
    fn allow_name(&self, name: &str) -> bool {
        let name = plain(name);
        name == "localhost"
            || name.ends_with(".localhost")
            || address(&name).is_some_and(|address| address.to_canonical().is_loopback())
            || self.hosts.contains(&name)
    }

    /// Whether a page of this origin may call.
    pub(crate) fn allow_origin(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let page = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
        let own = || {
            page.as_ref()
                .and_then(Url::host_str)
                .is_some_and(|name| self.allow_name(name))
        };
        match &self.origins {
            CorsOrigins::Any => true,
            CorsOrigins::ByKeys => own(),
            CorsOrigins::Only(list) => list.contains(origin) || own(),
            CorsOrigins::None => {
                let here = headers.get(HOST).and_then(|host| host.to_str().ok());
                let there = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
                here.is_some() && here == there.map(|(_, authority)| authority)
            }
        }
    }

    fn fault(&self, request: &Request) -> Option<EdgeFault> {
        let headers = request.headers();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        // Shortened for the message only: what is checked is the whole.
        let shown = |text: String| text.chars().take(100).collect::<String>();
        // What stands in the request line wins, as HTTP says; a browser always sends one of both.
        let host: Option<String> = match request.uri().authority() {
            Some(authority) => Some(authority.as_str().to_owned()),
            None => headers.get(HOST).map(text),
        };
        if let Some(host) = host
            && !self.allow_host(&host)
        {
            return Some(EdgeFault::ForeignHost { host: shown(host) });
        }
        let foreign = |origin: String| Some(EdgeFault::ForeignPage { origin });
        match headers.get(ORIGIN) {
            Some(origin) if self.allow_origin(origin, headers) => None,
            Some(origin) => foreign(shown(text(origin))),
            None if is_cross_site(headers) && !is_visit(request) && self.origins != CorsOrigins::Any => {
                foreign("another site".to_owned())
            }
            None => None,
        }
    }
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// As names are compared.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn says(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found == value)
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    says(headers, "sec-fetch-site", "cross-site")
}

/// Somebody followed a link: the page that has it cannot read what comes.
fn is_visit(request: &Request) -> bool {
    let headers = request.headers();
    request.method() == Method::GET
        && says(headers, "sec-fetch-mode", "navigate")
        && says(headers, "sec-fetch-dest", "document")
}

/// Who may visit, for the layer. Keys may come while the server runs, and then they are the right.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(super) visitors: Arc<Visitors>,
    pub(super) keys: Arc<KeyRing>,
    /// A path that needs no key.
    without_key: Option<&'static str>,
}

impl Watch {
    /// Over all paths but those of links.
    pub(crate) fn new(visitors: Visitors, keys: Arc<KeyRing>) -> Self {
        Self {
            visitors: Arc::new(visitors),
            keys,
            without_key: None,
        }
    }

    /// Over this path also where there are keys.
    pub(crate) fn and_always(self, path: &'static str) -> Self {
        Self {
            without_key: Some(path),
            ..self
        }
    }

    fn fault(&self, request: &Request) -> Option<EdgeFault> {
        let path = request.uri().path();
        let keyless = self.keys.is_open() || self.without_key.is_some_and(|open| open == path);
        let watched = keyless && !path.starts_with("/files/");
        watched.then(|| self.visitors.fault(request)).flatten()
    }
}

/// Refuses the calls of foreign names and pages where no key is asked for.
pub(super) async fn check(State(watch): State<Watch>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let fault = watch.fault(&request);
    match fault {
        Some(fault) => Shape::of(path).failure(fault).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn refused(visitors: &Visitors, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get("/v3/model");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        visitors.fault(&request.body(Body::empty()).unwrap()).is_some()
    }

    fn visitors(origins: CorsOrigins) -> Visitors {
        Visitors::of(&ApiConfig {
            cors_origins: origins,
            allowed_hosts: vec!["Studio.lan".to_owned()],
            public_url: Some("https://pictures.example/base".parse().unwrap()),
            ..ApiConfig::new()
        })
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let visitors = visitors(CorsOrigins::ByKeys);
        for host in [
            "localhost",
            "LOCALHOST.:8080",
            "a.localhost:1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "studio.lan:80",
            "pictures.example",
        ] {
            assert!(!refused(&visitors, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.168.0.7:8080",
            "0.0.0.0",
            "evil.example@localhost:1/x",
            "notlocalhost",
            "",
        ] {
            assert!(refused(&visitors, &[("host", host)]), "{host}");
        }
        // What is cut off for a message is checked all the same.
        let long = format!("{}.{}.localhost.evil.example", "a".repeat(63), "a".repeat(26));
        for host in [&long, "evil.example:80@localhost"] {
            assert!(refused(&visitors, &[("host", host)]), "{host}");
        }
        assert!(!refused(&visitors, &[]), "no browser leaves it out");
    }

    #[test]
    fn metrics_without_a_key_are_for_addresses_and_known_names() {
        let keys = KeyRing::new([("a".to_owned(), "sk".to_owned())]);
        let watch = Watch::new(Visitors::of_admin(&ApiConfig::new()), Arc::new(keys)).and_always("/metrics");
        let refused = |path: &str, host: &str| {
            let request = Request::get(path).header("host", host).body(Body::empty());
            watch.fault(&request.unwrap()).is_some()
        };
        for (path, host, expected) in [
            ("/metrics", "10.0.0.7:8081", false),
            ("/metrics", "[2001:db8::1]:8081", false),
            ("/metrics", "localhost:8081", false),
            ("/metrics", "evil.example:8081", true),
            ("/healthz", "evil.example:8081", false),
        ] {
            assert_eq!(refused(path, host), expected, "{path} {host}");
        }
    }

    #[test]
    fn a_page_from_any_address_is_foreign_where_any_address_is_a_host() {
        let admin = Visitors::of_admin(&ApiConfig::new());
        let host = ("host", "10.0.0.7:8081");
        for (origin, expected) in [
            ("http://203.0.113.5", true),
            ("http://10.0.0.7:8081", true),
            ("http://[2001:db8::1]", true),
            ("http://127.0.0.1:3000", false),
        ] {
            assert_eq!(refused(&admin, &[host, ("origin", origin)]), expected, "{origin}");
        }
    }

    #[test]
    fn only_pages_of_this_machine_or_listed_ones_may_call() {
        let local = ("host", "localhost:8080");
        let evil = ("origin", "https://evil.example");
        let listed = CorsOrigins::Only(vec![HeaderValue::from_static("https://evil.example")]);
        for (origins, headers, expected) in [
            (
                CorsOrigins::ByKeys,
                &[local, ("origin", "http://localhost:3000")][..],
                false,
            ),
            (
                CorsOrigins::ByKeys,
                &[local, ("origin", "https://pictures.example")],
                false,
            ),
            (CorsOrigins::ByKeys, &[local, evil], true),
            (CorsOrigins::ByKeys, &[local, ("origin", "null")], true),
            (
                CorsOrigins::ByKeys,
                &[local, ("sec-fetch-site", "cross-site")],
                true,
            ),
            (
                CorsOrigins::ByKeys,
                &[local, ("sec-fetch-site", "same-site")],
                false,
            ),
            (CorsOrigins::ByKeys, &[local, ("sec-fetch-site", "none")], false),
            (
                CorsOrigins::ByKeys,
                &[
                    local,
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                false,
            ),
            (
                listed.clone(),
                &[local, evil, ("sec-fetch-site", "cross-site")],
                false,
            ),
            (listed, &[local, ("origin", "https://other.example")], true),
            (
                CorsOrigins::Any,
                &[local, evil, ("sec-fetch-site", "cross-site")],
                false,
            ),
            (
                CorsOrigins::None,
                &[local, ("origin", "http://localhost:8080")],
                false,
            ),
            (
                CorsOrigins::None,
                &[local, ("origin", "http://localhost:3000")],
                true,
            ),
        ] {
            assert_eq!(
                refused(&visitors(origins.clone()), headers),
                expected,
                "{origins:?} {headers:?}"
            );
        }
    }
}
