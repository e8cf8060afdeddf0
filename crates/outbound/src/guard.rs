//! Which addresses, names and ports a caller may send us to. Pure: no socket, no clock, no name server.
//!
//! The tables follow IANA's special-purpose registries (RFC 6890 and its updates) and add the addresses at which
//! clouds keep their metadata. IPv6 is an allow list: only global unicast (2000::/3) less its special blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Reachable from anywhere.
    Public,
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, carrier-grade NAT, unique local IPv6.
    Private,
    /// This link only.
    LinkLocal,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// Many receivers.
    Multicast,
    /// An IPv4 address in IPv6 clothes: mapped, compatible, NAT64, 6to4, Teredo.
    Translated,
    /// Documentation, benchmarks, broadcast, "this network", and what is not assigned.
    Reserved,
}

/// Why the guard said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The address is not one that a caller may name.
    #[error("{address} is refused: {class:?}")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is for.
        class: AddressClass,
    },
    /// The name stands for this machine or an inner network, whatever it resolves to.
    #[error("the host name is one of inner networks")]
    Name,
}

/// Decides where a caller may send us. The strict one is [`AddressGuard::public_only`].
#[derive(Clone, Debug)]
pub struct AddressGuard {
    allow_private: bool,
    #[cfg(test)]
    permitted: Vec<SocketAddr>,
}

impl AddressGuard {
    /// Public addresses only.
    #[must_use]
    pub const fn public_only() -> Self {
        Self {
            allow_private: false,
            #[cfg(test)]
            permitted: Vec::new(),
        }
    }

    /// Loopback and private networks as well, for development on one's own machine.
    /// Metadata services, link-local, multicast, translated and reserved addresses stay refused.
    #[must_use]
    pub const fn allowing_private() -> Self {
        Self {
            allow_private: true,
            #[cfg(test)]
            permitted: Vec::new(),
        }
    }

    /// Public addresses, and the sockets of a test's own servers.
    #[cfg(test)]
    pub(crate) const fn permitting(permitted: Vec<SocketAddr>) -> Self {
        Self {
            allow_private: false,
            permitted,
        }
    }

    /// Checks one address that is about to be connected to.
    ///
    /// # Errors
    /// When a caller may not send us there.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), Refusal> {
        #[cfg(test)]
        if self.permitted.contains(&address) {
            return Ok(());
        }
        let class = classify(address.ip());
        let allowed = match class {
            AddressClass::Public => true,
            AddressClass::Loopback | AddressClass::Private => self.allow_private,
            AddressClass::LinkLocal
            | AddressClass::Metadata
            | AddressClass::Multicast
            | AddressClass::Translated
            | AddressClass::Reserved => false,
        };
        if allowed {
            return Ok(());
        }
        Err(Refusal::Address {
            address: address.ip(),
            class,
        })
    }

    /// Checks a host name before anybody is asked what it stands for.
    /// `name` is lower-case ASCII, as a parsed URL has it.
    ///
    /// A name without a dot is a neighbour's: search domains make `redis` a host of the inner network.
    ///
    /// # Errors
    /// When the name is one of inner networks.
    pub fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let name = name.trim_end_matches('.');
        let below = |domain: &str| {
            name.strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let inner = INNER_DOMAINS.iter().any(|domain| below(domain)) || !name.contains('.');
        let refused = name.is_empty()
            || METADATA_NAMES.iter().any(|metadata| below(metadata))
            || (inner && !self.allow_private);
        if refused { Err(Refusal::Name) } else { Ok(()) }
    }

    /// Whether pictures and webhooks are served on such a port: 80, 443, and from 1024 upwards all but well-known
    /// services that speak another protocol, since a line of HTTP can be a command to some of them.
    #[must_use]
    pub fn allows_port(&self, port: u16) -> bool {
        matches!(port, 80 | 443) || (port >= 1024 && !SERVICE_PORTS.contains(&port))
    }
}

/// What an address is for.
pub(crate) fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => V4_BLOCKS
            .iter()
            .find(|(block, bits, _)| shares_prefix(u32::from(v4).into(), u32::from(*block).into(), 96 + bits))
            .map_or(AddressClass::Public, |(_, _, class)| *class),
        IpAddr::V6(v6) => V6_BLOCKS
            .iter()
            .find(|(block, bits, _)| shares_prefix(v6.into(), (*block).into(), *bits))
            .map_or(AddressClass::Reserved, |(_, _, class)| *class),
    }
}

fn shares_prefix(a: u128, b: u128, bits: u32) -> bool {
    bits == 0 || (a ^ b) >> (128 - bits) == 0
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// Block, length of its prefix, what it is for; the first that holds the address wins, none means public.
const V4_BLOCKS: &[(Ipv4Addr, u32, AddressClass)] = &[
    (v4(100, 100, 100, 200), 32, AddressClass::Metadata), // Alibaba, inside carrier-grade NAT.
    (v4(168, 63, 129, 16), 32, AddressClass::Metadata),   // Azure's wire server, inside public space.
    (v4(169, 254, 169, 254), 32, AddressClass::Metadata), // AWS, Azure, Google and most others.
    (v4(192, 0, 0, 192), 32, AddressClass::Metadata),     // Oracle.
    (v4(0, 0, 0, 0), 8, AddressClass::Reserved),          // "This network"; Linux connects it to loopback.
    (v4(10, 0, 0, 0), 8, AddressClass::Private),
    (v4(100, 64, 0, 0), 10, AddressClass::Private), // Carrier-grade NAT.
    (v4(127, 0, 0, 0), 8, AddressClass::Loopback),
    (v4(169, 254, 0, 0), 16, AddressClass::LinkLocal),
    (v4(172, 16, 0, 0), 12, AddressClass::Private),
    (v4(192, 0, 0, 0), 24, AddressClass::Reserved), // IETF protocol assignments.
    (v4(192, 0, 2, 0), 24, AddressClass::Reserved), // Documentation.
    (v4(192, 88, 99, 0), 24, AddressClass::Translated), // 6to4 relays.
    (v4(192, 168, 0, 0), 16, AddressClass::Private),
    (v4(198, 18, 0, 0), 15, AddressClass::Reserved), // Benchmarks.
    (v4(198, 51, 100, 0), 24, AddressClass::Reserved), // Documentation.
    (v4(203, 0, 113, 0), 24, AddressClass::Reserved), // Documentation.
    (v4(224, 0, 0, 0), 4, AddressClass::Multicast),
    (v4(240, 0, 0, 0), 4, AddressClass::Reserved), // Future use, and broadcast.
];

const fn v6(head: [u16; 4], tail: [u16; 4]) -> Ipv6Addr {
    Ipv6Addr::new(
        head[0], head[1], head[2], head[3], tail[0], tail[1], tail[2], tail[3],
    )
}

/// As [`V4_BLOCKS`], but none means reserved: what is not assigned today may be an inner network tomorrow.
const V6_BLOCKS: &[(Ipv6Addr, u32, AddressClass)] = &[
    (v6([0; 4], [0, 0, 0, 1]), 128, AddressClass::Loopback),
    (v6([0; 4], [0; 4]), 128, AddressClass::Reserved),
    (v6([0; 4], [0; 4]), 96, AddressClass::Translated), // IPv4-compatible, ::a.b.c.d.
    (v6([0; 4], [0, 0xffff, 0, 0]), 96, AddressClass::Translated), // IPv4-mapped, ::ffff:a.b.c.d.
    (v6([0; 4], [0xffff, 0, 0, 0]), 96, AddressClass::Translated), // IPv4-translated, ::ffff:0:a.b.c.d.
    (v6([0x64, 0xff9b, 0, 0], [0; 4]), 96, AddressClass::Translated), // NAT64.
    (v6([0x64, 0xff9b, 1, 0], [0; 4]), 48, AddressClass::Translated), // NAT64 for local use.
    (v6([0x2001, 0, 0, 0], [0; 4]), 32, AddressClass::Translated), // Teredo.
    (v6([0x2001, 0, 0, 0], [0; 4]), 23, AddressClass::Reserved), // IETF protocol assignments.
    (v6([0x2001, 0xdb8, 0, 0], [0; 4]), 32, AddressClass::Reserved), // Documentation.
    (v6([0x2002, 0, 0, 0], [0; 4]), 16, AddressClass::Translated), // 6to4.
    (v6([0x3fff, 0, 0, 0], [0; 4]), 20, AddressClass::Reserved), // Documentation.
    (v6([0x2000, 0, 0, 0], [0; 4]), 3, AddressClass::Public),
    (
        v6([0xfd00, 0xec2, 0, 0], [0, 0, 0, 0x254]),
        128,
        AddressClass::Metadata,
    ), // AWS.
    (
        v6([0xfd20, 0xce, 0, 0], [0, 0, 0, 0x254]),
        128,
        AddressClass::Metadata,
    ), // Google.
    (v6([0xfc00, 0, 0, 0], [0; 4]), 7, AddressClass::Private), // Unique local.
    (v6([0xfe80, 0, 0, 0], [0; 4]), 10, AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0], [0; 4]), 10, AddressClass::Reserved), // Site-local, given up by RFC 3879.
    (v6([0xff00, 0, 0, 0], [0; 4]), 8, AddressClass::Multicast),
];

/// Domains that only an inner network or one machine answers (RFC 6761, RFC 6762, RFC 8375, ICANN's `.internal`).
const INNER_DOMAINS: &[&str] = &[
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "corp",
    "home",
    "lan",
    "home.arpa",
];

/// Names of metadata services, refused even where private networks are allowed.
const METADATA_NAMES: &[&str] = &[
    "metadata.google.internal",
    "metadata.goog",
    "metadata",
    "instance-data",
    "instance-data.ec2.internal",
];

/// From 1024 upwards: browsers' list of bad ports (WHATWG Fetch, "port blocking"), then databases, queues and control
/// planes that must never take orders through us.
const SERVICE_PORTS: &[u16] = &[
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080, // Fetch.
    1025, 2525, // SMTP beside port 25.
    1080, 3128, // Proxies.
    1433, 1521, 3050, 3306, 5432, 5433, 6432, // SQL databases.
    1883, 4222, 5671, 5672, 6222, 8222, 8883, 9092, // Message queues.
    2181, 2375, 2376, 2379, 2380, 4001, 6443, 8500, 8600, 10250,
    10255, // Coordination, Docker, Kubernetes.
    3389, 5900, 5901, 5985, 5986, // Remote control.
    6379, 6380, 7000, 7001, 9042, 9200, 9300, 11211, 26379, 27017, 27018, 28015, // Stores and caches.
];

#[cfg(test)]
mod tests;
