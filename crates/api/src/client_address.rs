//! From which machine a call comes: the other end of its connection, or what a trusted proxy says about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::{Extensions, HeaderMap};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection that a request came on; put there by `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The machine that calls.
///
/// A proxy adds the address it was called from at the end of `X-Forwarded-For`; whatever stands before that may have been
/// written by the caller. Only the last one counts, and only where the settings say that there is a proxy.
pub(crate) fn client_address(extensions: &Extensions, headers: &HeaderMap, trust_forwarded: bool) -> IpAddr {
    let peer = extensions
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Peer(peer)| *peer);
    let forwarded = || {
        let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
        address_in(last.to_str().ok()?.rsplit(',').next()?)
    };
    let address = trust_forwarded.then(forwarded).flatten().unwrap_or(peer);
    machine(address)
}

/// With a port or without, IPv6 in brackets or without.
fn address_in(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let plain = text.trim_start_matches('[').trim_end_matches(']');
    let address = plain.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// What counts as one address: a machine has a whole /64 of IPv6 to choose from.
pub(crate) fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(if address.is_loopback() {
                address
            } else {
                Ipv6Addr::from(network)
            })
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(trust: bool, peer: &str, headers: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(Peer(peer.parse().unwrap()));
        let headers = headers
            .iter()
            .map(|value| (FORWARDED_FOR.parse().unwrap(), value.parse().unwrap()));
        // `collect` keeps all values of one name.
        client_address(&extensions, &headers.collect(), trust).to_string()
    }

    #[test]
    fn only_the_last_proxy_is_believed_and_only_where_there_is_one() {
        let spoofed = &["1.1.1.1, 203.0.113.7"][..];
        assert_eq!(found(false, "10.0.0.1", spoofed), "10.0.0.1");
        assert_eq!(found(true, "10.0.0.1", spoofed), "203.0.113.7");
        assert_eq!(
            found(true, "10.0.0.1", &["1.1.1.1", "203.0.113.8"]),
            "203.0.113.8"
        );
        assert_eq!(found(true, "10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(found(true, "10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::");
        assert_eq!(found(true, "10.0.0.1", &["2001:db8::1"]), "2001:db8::");
        for unreadable in [&["unknown"][..], &["1.1.1.1, "], &["1.1.1.1, _hidden"], &[]] {
            assert_eq!(found(true, "10.0.0.1", unreadable), "10.0.0.1");
        }
    }

    #[test]
    fn a_machine_is_one_however_it_writes_its_address() {
        for (address, expected) in [
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::1"),
        ] {
            assert_eq!(found(false, address, &[]), expected);
        }
    }
}
