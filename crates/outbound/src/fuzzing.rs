//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use std::net::{IpAddr, SocketAddr};

use crate::{AddressGuard, Destination};

/// An address that a caller gives: what passes is a plain request line, and no spelling of a private address passes.
///
/// # Panics
/// When something that must hold for every text does not.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let guard = AddressGuard::public_only();
    let Ok(destination) = Destination::parse(text, &guard) else {
        return;
    };
    let authority = destination.authority();
    let line = format!("{}{authority}", destination.path_and_query());
    assert!(line.bytes().all(|byte| byte.is_ascii_graphic()), "{line:?}");
    // The port is left out where it is the scheme's own.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => &authority,
    };
    let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return;
    };
    if guard.check_address(SocketAddr::new(address, 80)).is_ok() {
        // The standard library's own opinion.
        let private = match address {
            IpAddr::V4(v4) => {
                v4.is_private() || v4.is_link_local() || v4.is_broadcast() || v4.is_documentation()
            }
            IpAddr::V6(v6) => v6.to_ipv4().is_some() || v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        assert!(!private && !special, "{text:?} leads to {address}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("address", super::address);
    }
}
