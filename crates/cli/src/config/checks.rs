//! What a setting may be. Checked once, when the settings are read, so that nothing behind meets a time that no clock can
//! show, or an address that no link can begin with.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pentimento_storage::{S3Config, S3Links};
use url::Url;

use super::{
    ByteSize, Compliance, ConfigError, DeviceChoice, GpuMemory, ImagesLinks, PrecisionChoice, Settings,
};

pub(super) const DAY: u64 = 24 * 3600;
/// How long a link may work.
pub(super) const LINK_TTL: RangeInclusive<u64> = 1..=365 * DAY;
/// How long a job may wait and run.
pub(super) const JOB_DEADLINE: RangeInclusive<u64> = 1..=365 * DAY;
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
/// How long a worker of a cluster may be silent: three heartbeats have to fit in, whatever the network does meanwhile.
pub(super) const LEASE: RangeInclusive<u64> = 2..=600;
/// The least speed, in bytes a second.
pub(super) const SPEED: RangeInclusive<u64> = 1..=1 << 20;
pub(super) const CONNECTIONS: RangeInclusive<u64> = 8..=1_000_000;
/// The largest picture of a common camera has about 200; a decoded megapixel takes 3 MB.
pub(super) const MEGAPIXELS: RangeInclusive<u64> = 1..=1000;
pub(super) const PROMPT_TOKENS: RangeInclusive<u64> = 75..=100_000;
/// As many as the engine takes at most.
pub(super) const RUNNING_JOBS: RangeInclusive<u64> = 1..=128;
/// Calls in a minute, and jobs at once.
pub(super) const RATE: RangeInclusive<u64> = 1..=10_000_000;
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

/// How often, or how many; None is without a bound.
pub(super) fn rate(name: &'static str, value: Option<u64>) -> Result<Option<NonZeroU32>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    within(name, value, RATE)?;
    Ok(u32::try_from(value).ok().and_then(NonZeroU32::new))
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

/// What computes, which has to know the numbers that are asked for.
pub(super) fn device(
    device: Option<DeviceChoice>,
    precision: Option<PrecisionChoice>,
) -> Result<DeviceChoice, ConfigError> {
    let device = device.unwrap_or_default();
    let (value, problem) = match (&device, precision) {
        (DeviceChoice::Cpu, Some(PrecisionChoice::F16)) => (
            "f16",
            "a processor does not compute in; leave it out, or use a GPU (--device cuda)",
        ),
        (
            DeviceChoice::AllCuda | DeviceChoice::Cuda(_) | DeviceChoice::Emulated(_),
            Some(PrecisionChoice::Bf16),
        ) => (
            "bf16",
            "is for processors; leave it out, or use the processor (--device cpu)",
        ),
        _ => return Ok(device),
    };
    Err(ConfigError::Refused {
        name: "precision",
        value: value.to_owned(),
        problem,
    })
}

/// What may be used of a GPU's memory.
pub(super) fn gpu_memory(value: Option<GpuMemory>) -> Result<Option<GpuMemory>, ConfigError> {
    if let Some(GpuMemory::Bytes(bytes)) = value {
        memory("gpu_memory", Some(bytes))?;
    }
    Ok(value)
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
    Err(refused("public_url", without_password(url), problem))
}

/// As it may be printed.
fn without_password(mut url: Url) -> Url {
    if url.password().is_some() {
        let _ = url.set_password(Some("..."));
    }
    url
}

/// A collector of traces, in a build that can send to one.
pub(super) fn otlp_endpoint(url: Option<Url>) -> Result<Option<Url>, ConfigError> {
    let Some(url) = url else { return Ok(None) };
    let problem = if cfg!(not(feature = "otlp")) {
        "this build cannot use: it exports no traces; build it with `--features otlp`"
    } else if url.scheme() != "http" {
        "is no address of a collector; it must begin with http://, such as http://127.0.0.1:4318"
    } else if !url.username().is_empty() || url.password().is_some() {
        "has a user or a password in it, which would stand in the log; leave them out"
    } else {
        return Ok(Some(url));
    };
    Err(refused("otlp_endpoint", without_password(url), problem))
}

/// The files that pictures are signed with, in a build that can sign. One without the other signs nothing.
pub(super) fn c2pa(
    certificates: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let shown = |path: &Path| path.display().to_string();
    let (name, path, problem) = match (certificates, key) {
        (None, None) => return Ok(None),
        (Some(path), _) if cfg!(not(feature = "c2pa")) => {
            let problem = "this build cannot use: it signs no pictures; build it with `--features c2pa`";
            ("c2pa_certificates", path, problem)
        }
        (Some(certificates), Some(key)) => return Ok(Some((certificates, key))),
        (Some(path), None) => ("c2pa_certificates", path, "signs nothing without c2pa_key"),
        (None, Some(path)) => ("c2pa_key", path, "signs nothing without c2pa_certificates"),
    };
    Err(refused(name, shown(&path), problem))
}

/// Who marks the pixels marks the files as well.
pub(super) fn compliance(
    compliance: Option<Compliance>,
    write_source_type: Option<bool>,
) -> Result<Compliance, ConfigError> {
    let compliance = compliance.unwrap_or_default();
    if compliance == Compliance::Eu && write_source_type == Some(false) {
        let problem = "cannot be with compliance = \"eu\", which wants the mark in the files, too; leave one of them out";
        return Err(refused("write_source_type", false, problem));
    }
    Ok(compliance)
}

/// The server that is asked.
pub(super) fn server(url: Option<Url>) -> Result<Option<Url>, ConfigError> {
    match url {
        Some(url) if !matches!(url.scheme(), "http" | "https") => Err(refused(
            "server",
            url,
            "is no address of the web; it must begin with http:// or https://",
        )),
        url => Ok(url),
    }
}

/// The bucket for pictures, with the variables that every client of AWS reads.
pub(super) fn images(
    settings: &Settings,
    variables: &[(String, String)],
) -> Result<Option<S3Config>, ConfigError> {
    let Some(place) = &settings.images else {
        return Ok(None);
    };
    let bucket = place
        .trim()
        .parse::<S3Config>()
        .map_err(|error| ConfigError::Images {
            place: place.clone(),
            problem: error,
        })?;
    let links = match settings.images_links.unwrap_or_default() {
        ImagesLinks::Auto => S3Links::Auto,
        ImagesLinks::Redirect => S3Links::Redirect,
        ImagesLinks::Stream => S3Links::Stream,
    };
    Ok(Some(bucket.with_variables(variables.to_vec()).with_links(links)))
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
