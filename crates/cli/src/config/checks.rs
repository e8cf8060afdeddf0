//! What a setting may be. Checked once, when the settings are read, so that nothing behind meets a time that no clock can
//! show, or an address that no link can begin with.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::{ByteSize, ConfigError};

const DAY: u64 = 24 * 3600;
/// How long a link may work.
pub(super) const LINK_TTL: RangeInclusive<u64> = 1..=365 * DAY;
/// How long a call may be held.
pub(super) const HOLD: RangeInclusive<u64> = 0..=3600;
/// How long a stop may take.
pub(super) const GRACE: RangeInclusive<u64> = 0..=DAY;
/// The time for a head, and for a body or a reply to stand still.
pub(super) const SHORT: RangeInclusive<u64> = 1..=3600;
/// The time for a whole body, and for a connection to rest.
pub(super) const LONG: RangeInclusive<u64> = 1..=DAY;
/// How long a model that nobody uses stays in memory.
pub(super) const KEEP_ALIVE: RangeInclusive<u64> = 0..=365 * DAY;
/// The least speed, in bytes a second.
pub(super) const SPEED: RangeInclusive<u64> = 1..=1 << 20;
pub(super) const CONNECTIONS: RangeInclusive<u64> = 8..=1_000_000;
/// The largest picture of a common camera has about 200; a decoded megapixel takes 3 MB.
pub(super) const MEGAPIXELS: RangeInclusive<u64> = 1..=1000;
pub(super) const PROMPT_TOKENS: RangeInclusive<u64> = 75..=100_000;
/// As many as the engine takes at most.
pub(super) const RUNNING_JOBS: RangeInclusive<u64> = 1..=128;
const MEMORY: RangeInclusive<u64> = 64 << 10..=1 << 50;

/// The value, or the default, when it is in the range.
pub(super) fn number(
    name: &'static str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(default);
    within(name, value, range).map(|()| value)
}

/// The same in seconds.
pub(super) fn seconds(
    name: &'static str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let value = value.unwrap_or(default);
    let unit = |seconds: &u64| format!("{seconds} seconds");
    if range.contains(&value) {
        Ok(Duration::from_secs(value))
    } else {
        Err(out_of_range(
            name,
            unit(&value),
            unit(range.start()),
            unit(range.end()),
        ))
    }
}

/// A number of things, which fits whatever this machine counts with.
pub(super) fn count(
    name: &'static str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Result<usize, ConfigError> {
    number(name, value, default, range).map(|value| usize::try_from(value).unwrap_or(usize::MAX))
}

/// A share in percent.
pub(super) fn percent(name: &'static str, value: Option<u64>, default: u64) -> Result<u16, ConfigError> {
    number(name, value, default, 0..=100).map(|value| u16::try_from(value).unwrap_or(100))
}

/// Memory for one use.
pub(super) fn memory(name: &'static str, value: Option<ByteSize>) -> Result<Option<ByteSize>, ConfigError> {
    match value {
        Some(ByteSize(bytes)) if !MEMORY.contains(&bytes) => Err(out_of_range(
            name,
            format!("{bytes} bytes"),
            "64 KiB",
            "1048576 GiB",
        )),
        value => Ok(value),
    }
}

fn within(name: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(out_of_range(name, value, range.start(), range.end()))
    }
}

fn out_of_range(
    name: &'static str,
    value: impl Display,
    least: impl Display,
    most: impl Display,
) -> ConfigError {
    ConfigError::OutOfRange {
        name,
        value: value.to_string(),
        least: least.to_string(),
        most: most.to_string(),
    }
}

fn refused(name: &'static str, value: impl Display, problem: &'static str) -> ConfigError {
    ConfigError::Refused {
        name,
        value: value.to_string(),
        problem,
    }
}

/// The start of every link.
pub(super) fn public_url(url: Option<Url>) -> Result<Option<Url>, ConfigError> {
    let Some(url) = url else { return Ok(None) };
    let problem = if !matches!(url.scheme(), "http" | "https") {
        "is no address of the web; it must begin with http:// or https://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "has a user or a password in it, which would stand in every link; leave them out"
    } else if url.query().is_some() || url.fragment().is_some() {
        "has a ? or a # in it; links go on behind it, so it must end with the host or a path"
    } else {
        return Ok(Some(url));
    };
    // The password stays out of what is printed.
    let mut shown = url;
    if shown.password().is_some() {
        let _ = shown.set_password(Some("..."));
    }
    Err(refused("public_url", shown, problem))
}

/// Web pages that may call: origins, or one `*`.
pub(super) fn cors_origins(origins: Option<Vec<String>>) -> Result<Option<Vec<String>>, ConfigError> {
    let name = "cors_origins";
    for origin in origins.iter().flatten() {
        if origin == "*" {
            if origins.as_ref().is_some_and(|origins| origins.len() > 1) {
                return Err(refused(name, origin, "means every page, so it must stand alone"));
            }
        } else if !is_origin(origin) {
            return Err(refused(
                name,
                origin,
                "is no origin; write scheme://host or scheme://host:port as a browser does, such as https://example.com",
            ));
        }
    }
    Ok(origins)
}

fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let Some(host) = url.host_str() else { return false };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    // What has a path, a user or the scheme's own port is written differently and equals no header of a browser.
    text == format!("{}://{host}{port}", url.scheme()) && text.is_ascii()
}

/// Names by which the server is called.
pub(super) fn allowed_hosts(hosts: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let hosts = hosts.unwrap_or_default();
    for host in &hosts {
        if url::Host::parse(host).is_err() || host.contains('*') {
            return Err(refused(
                "allowed_hosts",
                host,
                "is no name of a host; write it without scheme and port, such as studio.lan",
            ));
        }
    }
    Ok(hosts)
}

/// Nobody can listen on a multicast or broadcast address.
pub(super) fn listen(name: &'static str, address: SocketAddr) -> Result<SocketAddr, ConfigError> {
    let ip = address.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_multicast() || broadcast {
        return Err(refused(
            name,
            address,
            "is an address of many machines; use one of this machine, 127.0.0.1 or 0.0.0.0",
        ));
    }
    Ok(address)
}
