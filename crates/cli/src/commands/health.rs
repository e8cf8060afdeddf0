//! `pentimento health`: whether the server of these settings answers, for container engines and scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::config::Config;

/// Container engines wait for thirty seconds by default, and a healthy server answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks `/readyz` of the server on this machine.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
    let address = reachable(config.http.listen);
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let reply = client.get(format!("http://{address}/readyz")).send().await;
    let status = reply
        .with_context(|| format!("no server answers at {address}"))?
        .status();
    ensure!(status.is_success(), "the server at {address} answers {status}");
    Ok(())
}

/// Who listens on every address is asked at this machine's own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_at_loopback_and_one_where_it_is() {
        for (listen, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.7:8080", "10.0.0.7:8080"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
