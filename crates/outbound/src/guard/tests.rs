//! Every row of the address tables, the edges of every block, and what no address may ever do.

use super::*;
use proptest::prelude::*;

fn class(text: &str) -> AddressClass {
    classify(text.parse().unwrap())
}

#[test]
fn special_addresses_are_told_apart() {
    use AddressClass::{LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Translated};
    for (expected, addresses) in [
        (Loopback, "127.0.0.1 127.0.0.0 127.1.2.3 127.255.255.255 ::1"),
        (
            Private,
            "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 100.64.0.0 \
             100.127.255.255 fc00:: fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ),
        (LinkLocal, "169.254.0.0 169.254.255.255 fe80::1 febf::1"),
        (
            Metadata,
            "169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 fd00:ec2::254 fd20:ce::254",
        ),
        (Multicast, "224.0.0.1 239.255.255.255 ff00::1 ff02::1 ffff::"),
        (
            Reserved,
            "0.0.0.0 0.255.255.255 192.0.0.1 192.0.2.1 198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.9 \
             240.0.0.0 255.255.255.255 :: 100::1 2001:2::1 2001:1ff:: 2001:db8::1 3fff::1 4000::1 5f00::1 fec0::1",
        ),
        (
            Translated,
            "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 ::8.8.8.8 ::ffff:0:10.0.0.1 64:ff9b::a00:1 \
             64:ff9b:1::a00:1 64:ff9b::808:808 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2002:7f00:1:: \
             2002:808:808::1 192.88.99.1",
        ),
        (
            Public,
            "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
             169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 \
             198.20.0.0 223.255.255.255 2606:4700:4700::1111 2001:4860:4860::8888 2001:200:: 2003::1 3ffe::1",
        ),
    ] {
        for address in addresses.split_whitespace() {
            assert_eq!(class(address), expected, "{address}");
        }
    }
}

fn socket(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 80)
}

#[test]
fn the_switch_for_development_opens_loopback_and_private_networks_only() {
    let strict = AddressGuard::public_only();
    let open = AddressGuard::allowing_private();
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "::1",
        "fd12::1",
    ] {
        assert!(strict.check_address(socket(address)).is_err(), "{address}");
        assert!(open.check_address(socket(address)).is_ok(), "{address}");
    }
    for address in [
        "0.0.0.0",
        "169.254.169.254",
        "169.254.1.1",
        "100.100.100.200",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
    ] {
        assert!(strict.check_address(socket(address)).is_err(), "{address}");
        assert!(open.check_address(socket(address)).is_err(), "{address}");
    }
    assert!(strict.check_address(socket("93.184.215.14")).is_ok());
}

#[test]
fn names_of_inner_networks_are_refused() {
    let strict = AddressGuard::public_only();
    let open = AddressGuard::allowing_private();
    for name in [
        "localhost",
        "localhost.",
        "a.localhost",
        "printer.local",
        "redis",
        "redis.",
        "db.internal",
        "x.corp",
        "nas.home.arpa",
    ] {
        assert_eq!(strict.check_name(name), Err(Refusal::Name), "{name}");
        assert_eq!(open.check_name(name), Ok(()), "{name}");
    }
    for name in [
        "metadata.google.internal",
        "metadata.google.internal.",
        "metadata.goog",
        "metadata",
        "instance-data",
        "",
        ".",
        "..",
    ] {
        assert_eq!(strict.check_name(name), Err(Refusal::Name), "{name}");
        assert_eq!(open.check_name(name), Err(Refusal::Name), "{name}");
    }
    for name in [
        "example.com",
        "example.com.",
        "notlocalhost.example",
        "mylocal.dev",
        "internal.example.org",
    ] {
        assert_eq!(strict.check_name(name), Ok(()), "{name}");
    }
}

#[test]
fn ports_of_other_services_are_refused() {
    let guard = AddressGuard::public_only();
    for port in [80, 443, 1024, 3000, 5000, 8000, 8080, 8443, 9000, 65535] {
        assert!(guard.allows_port(port), "{port}");
    }
    for port in [
        0, 1, 21, 22, 23, 25, 53, 81, 110, 143, 389, 445, 465, 587, 873, 1023,
    ] {
        assert!(!guard.allows_port(port), "{port}");
    }
    for port in SERVICE_PORTS {
        assert!(*port >= 1024 && !guard.allows_port(*port), "{port}");
    }
}

proptest! {
    /// However an IPv4 address is dressed up, it is not let through as IPv6.
    #[test]
    fn no_ipv6_form_of_an_ipv4_address_is_public(bits: u32, form in 0..6_usize) {
        let low = u128::from(bits);
        let dressed = [
            low,
            (0xffff << 32) | low,
            (0xffff << 48) | low,
            (0x64_ff9b << 96) | low,
            (0x0064_ff9b_0001 << 80) | low,
            (0x2002 << 112) | (low << 80),
        ][form];
        prop_assert_ne!(classify(IpAddr::V6(Ipv6Addr::from(dressed))), AddressClass::Public);
    }

    /// The standard library's own opinion agrees wherever it has one.
    #[test]
    fn agrees_with_the_standard_library(bits: u32) {
        let address = Ipv4Addr::from(bits);
        let special = address.is_loopback() || address.is_private() || address.is_link_local()
            || address.is_multicast() || address.is_broadcast() || address.is_documentation()
            || address.is_unspecified();
        prop_assert!(!special || classify(IpAddr::V4(address)) != AddressClass::Public);
    }
}
