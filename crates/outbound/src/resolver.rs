//! Names into addresses, behind a trait so that a test can be a hostile name server.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::shares::Shares;

/// Answers with every address of a name: A and AAAA, at the end of any chain of CNAMEs.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// All addresses of `name`, lower-case ASCII without a final dot.
    ///
    /// # Errors
    /// When the name does not exist or nobody answers.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Debug)]
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
    domains: Arc<Shares>,
}

/// The system's lookup cannot be interrupted: a name server that never answers keeps a thread after the caller has
/// gone. This bounds how many, so that such names cannot take the threads that decode pictures.
const MAX_LOOKUPS: usize = 64;
/// Of them, those of one domain: one dead name server leaves the others room.
const MAX_LOOKUPS_OF_A_DOMAIN: usize = 4;

impl SystemResolver {
    /// With room for a bounded number of lookups at a time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            domains: Arc::new(Shares::new(MAX_LOOKUPS_OF_A_DOMAIN)),
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

/// The last two labels of a name: below them whoever owns the domain can make as many names as they like.
fn domain(name: &str) -> &str {
    let start = name.rmatch_indices('.').nth(1);
    start.map_or(name, |(at, _)| &name[at + 1..])
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let of_domain = self.domains.place(domain(name)).await;
        let permit = Arc::clone(&self.lookups)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let _permits = (permit, of_domain);
            let addresses = (name.as_str(), 0_u16).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
        .await
        .map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_one_domain_share_its_places() {
        for (name, expected) in [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(domain(name), expected);
        }
    }
}
