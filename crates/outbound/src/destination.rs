//! A URL that has passed every rule that needs no name server: scheme, credentials, length, port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

use crate::{AddressGuard, Refusal};

/// Longer than any signed link that storage services hand out.
const MAX_URL_BYTES: usize = 8 * 1024;

/// Which rule a URL breaks. Depends on its text alone, so it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UrlProblem {
    /// Not an absolute URL.
    #[error("it is not a valid absolute URL")]
    Unreadable,
    /// More than 8 KiB.
    #[error("it is too long")]
    TooLong,
    /// Anything but http and https.
    #[error("only http and https are supported")]
    Scheme,
    /// `https://user:password@host/`, which mostly hides where a URL leads.
    #[error("it must not contain a user name or a password")]
    Credentials,
    /// A port of another service.
    #[error("port {0} is not allowed")]
    Port(u16),
    /// From https to http, which would give away what was secret.
    #[error("it leads from https to http")]
    Downgrade,
}

/// Where a URL leads, before any name is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    url: Url,
    host: DestinationHost,
    port: u16,
}

/// The host of a [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DestinationHost {
    /// Lower-case ASCII, without a dot at the end.
    Name(String),
    /// Written as an address, in whatever spelling.
    Address(IpAddr),
}

impl std::fmt::Display for DestinationHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Destination {
    /// Reads a URL as browsers do (WHATWG), so that `http://127.1/`, `http://0x7f000001/`, `http://2130706433/` and
    /// Unicode dots have become addresses before anything is checked.
    ///
    /// # Errors
    /// When it breaks a rule.
    pub fn parse(text: &str, guard: &AddressGuard) -> Result<Self, UrlProblem> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlProblem::TooLong);
        }
        Self::check(Url::parse(text).map_err(|_| UrlProblem::Unreadable)?, guard)
    }

    /// What the guard can say without a name server, so that an address that will never be reached is refused early.
    ///
    /// # Errors
    /// When the host is written as a refused address, or is a name of inner networks.
    pub fn check_host(&self, guard: &AddressGuard) -> Result<(), Refusal> {
        match &self.host {
            DestinationHost::Name(name) => guard.check_name(name),
            DestinationHost::Address(address) => guard.check_address(SocketAddr::new(*address, self.port)),
        }
    }

    /// Where a `Location` header leads from here.
    pub(crate) fn redirected(&self, location: &str, guard: &AddressGuard) -> Result<Self, UrlProblem> {
        if location.len() > MAX_URL_BYTES {
            return Err(UrlProblem::TooLong);
        }
        let next = self.url.join(location).map_err(|_| UrlProblem::Unreadable)?;
        let next = Self::check(next, guard)?;
        if self.is_secure() && !next.is_secure() {
            return Err(UrlProblem::Downgrade);
        }
        Ok(next)
    }

    fn check(mut url: Url, guard: &AddressGuard) -> Result<Self, UrlProblem> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlProblem::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlProblem::Credentials);
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => DestinationHost::Name(name.trim_end_matches('.').to_owned()),
            Some(Host::Ipv4(address)) => DestinationHost::Address(Ipv4Addr::into(address)),
            Some(Host::Ipv6(address)) => DestinationHost::Address(Ipv6Addr::into(address)),
            None => return Err(UrlProblem::Unreadable),
        };
        let port = url.port_or_known_default().ok_or(UrlProblem::Scheme)?;
        if !guard.allows_port(port) {
            return Err(UrlProblem::Port(port));
        }
        url.set_fragment(None);
        Ok(Self { url, host, port })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    pub(crate) const fn host(&self) -> &DestinationHost {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What stands in the request line: path and query, ASCII.
    pub(crate) fn path_and_query(&self) -> String {
        let path = self.url.path();
        self.url
            .query()
            .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
    }

    /// The `Host` header: the port only where it is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl std::fmt::Display for Destination {
    /// The whole URL, without its fragment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Destination, UrlProblem> {
        Destination::parse(text, &AddressGuard::public_only())
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        let loopback = DestinationHost::Address(Ipv4Addr::LOCALHOST.into());
        for text in [
            "http://127.0.0.1/",
            "http://127.0.0.1./",
            "http://127.1/",
            "http://127.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://017700000001/",
            "http://0x7f.0x0.0x0.0x1/",
            "http:127.0.0.1/",
            "http:\\\\127.0.0.1\\",
            "http://127。0。0。1/",
            "http://１２７.0.0.1/",
            "http://①②⑦.0.0.1/",
            "http://%31%32%37.0.0.1/",
            " http://127.0.0.1/ ",
            "ht\ntp://127.0.\t0.1/",
        ] {
            assert_eq!(parse(text).unwrap().host, loopback, "{text:?}");
        }
        let v6 = |text: &str| parse(text).unwrap().host;
        assert_eq!(
            v6("http://[::1]/"),
            DestinationHost::Address(Ipv6Addr::LOCALHOST.into())
        );
        let mapped: Ipv6Addr = "::ffff:7f00:1".parse().unwrap();
        assert_eq!(
            v6("http://[::ffff:127.0.0.1]/"),
            DestinationHost::Address(mapped.into())
        );
    }

    #[test]
    fn names_are_lower_case_ascii_without_a_final_dot() {
        for (text, name) in [
            ("http://EXAMPLE.com./a", "example.com"),
            ("https://bücher.example/", "xn--bcher-kva.example"),
            ("http://LOCALHOST/", "localhost"),
            ("http://localhost./", "localhost"),
            (
                "http://metadata.google.internal/computeMetadata/v1/",
                "metadata.google.internal",
            ),
            ("http://example。com/", "example.com"),
        ] {
            assert_eq!(
                parse(text).unwrap().host,
                DestinationHost::Name(name.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn only_http_and_https_without_credentials_on_web_ports() {
        for (text, problem) in [
            ("file:///etc/passwd", UrlProblem::Scheme),
            ("ftp://example.com/a.png", UrlProblem::Scheme),
            ("gopher://example.com/_x", UrlProblem::Scheme),
            ("data:image/png;base64,AAAA", UrlProblem::Scheme),
            ("javascript:alert(1)", UrlProblem::Scheme),
            ("ws://example.com/", UrlProblem::Scheme),
            ("C:\\pictures\\a.png", UrlProblem::Scheme),
            ("/etc/passwd", UrlProblem::Unreadable),
            ("", UrlProblem::Unreadable),
            ("example.com/a.png", UrlProblem::Unreadable),
            ("http://", UrlProblem::Unreadable),
            ("http://[::1%25eth0]/", UrlProblem::Unreadable),
            ("http://1.2.3.4.5/", UrlProblem::Unreadable),
            ("http://256.0.0.1/", UrlProblem::Unreadable),
            ("http://a b/", UrlProblem::Unreadable),
            ("http://user@127.0.0.1/", UrlProblem::Credentials),
            ("http://user:secret@example.com/", UrlProblem::Credentials),
            ("http://example.com@127.0.0.1/", UrlProblem::Credentials),
            ("http://:secret@example.com/", UrlProblem::Credentials),
            ("http://example.com:22/", UrlProblem::Port(22)),
            ("http://example.com:25/", UrlProblem::Port(25)),
            ("http://example.com:6379/", UrlProblem::Port(6379)),
            ("http://example.com:0/", UrlProblem::Port(0)),
            ("http://example.com:65536/", UrlProblem::Unreadable),
        ] {
            assert_eq!(parse(text), Err(problem), "{text}");
        }
        let long = format!("http://example.com/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(parse(&long), Err(UrlProblem::TooLong));
    }

    #[test]
    fn the_request_names_path_query_and_host() {
        let destination = parse("https://Example.com:8443/ä b.png?x=1&y=ö#part").unwrap();
        assert_eq!(destination.path_and_query(), "/%C3%A4%20b.png?x=1&y=%C3%B6");
        assert_eq!(destination.authority(), "example.com:8443");
        assert_eq!(parse("http://example.com:80").unwrap().authority(), "example.com");
        assert_eq!(
            parse("http://[2606:4700::1]:8080/").unwrap().authority(),
            "[2606:4700::1]:8080"
        );
    }

    #[test]
    fn a_redirect_is_checked_like_a_first_address() {
        let guard = AddressGuard::public_only();
        let from = parse("https://example.com/a/b.png").unwrap();
        let follow = |location: &str| from.redirected(location, &guard);
        assert_eq!(follow("c.png").unwrap().path_and_query(), "/a/c.png");
        assert_eq!(follow("//other.example/x").unwrap().authority(), "other.example");
        assert_eq!(follow("file:///etc/passwd"), Err(UrlProblem::Scheme));
        assert_eq!(follow("http://example.com/"), Err(UrlProblem::Downgrade));
        assert_eq!(follow("https://u@example.com/"), Err(UrlProblem::Credentials));
        assert_eq!(follow("https://example.com:25/"), Err(UrlProblem::Port(25)));
        assert_eq!(follow(&"a".repeat(MAX_URL_BYTES + 1)), Err(UrlProblem::TooLong));
    }

    proptest! {
        /// Whatever is typed, nothing panics, and what passes is an HTTP request line and host of plain ASCII.
        #[test]
        fn any_text_is_read_or_refused(text in "(https?://)?\\PC{0,40}") {
            if let Ok(destination) = parse(&text) {
                let line = format!("{}{}", destination.path_and_query(), destination.authority());
                prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic()), "{line:?}");
            }
        }
    }
}
