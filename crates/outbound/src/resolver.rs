//! Names into addresses, behind a trait so that a test can be a hostile name server.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host_limits::HostLimits;

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
    names: Arc<HostLimits>,
    domains: Arc<HostLimits>,
}

/// The system's lookup cannot be interrupted: a name server that never answers keeps a thread after the caller has
/// gone. This bounds how many, so that such names cannot take the threads that decode pictures.
const MAX_LOOKUPS: usize = 64;
/// Of them, those of one name: four calls with one dead name leave its neighbours room, which may be strangers to it, as
/// under `co.uk` or `github.io`.
const MAX_LOOKUPS_OF_A_NAME: usize = 4;
/// Those of all names that end in the same two labels: whoever owns a domain can make as many names below it as they
/// like, and one dead name server leaves the others room.
const MAX_LOOKUPS_OF_A_DOMAIN: usize = 16;

impl SystemResolver {
    /// With room for a bounded number of lookups at a time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            names: Arc::new(HostLimits::new(MAX_LOOKUPS_OF_A_NAME)),
            domains: Arc::new(HostLimits::new(MAX_LOOKUPS_OF_A_DOMAIN)),
        }
    }

    /// Waits until this name may be looked up: first for its own places, so that who waits there takes none of others.
    async fn room(&self, name: &str) -> io::Result<[OwnedSemaphorePermit; 3]> {
        let of_name = self.names.place(name).await;
        let of_domain = self.domains.place(domain(name)).await;
        let of_all = Arc::clone(&self.lookups).acquire_owned().await;
        Ok([of_name, of_domain, of_all.map_err(io::Error::other)?])
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

/// The last two labels of a name.
fn domain(name: &str) -> &str {
    let start = name.rmatch_indices('.').nth(1);
    start.map_or(name, |(at, _)| &name[at + 1..])
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let room = self.room(name).await?;
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let _room = room;
            let addresses = (name.as_str(), 0_u16).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
        .await
        .map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn dead_names_leave_their_neighbours_room_and_a_dead_domain_all_others() {
        let (resolver, mut dead) = (SystemResolver::new(), Vec::new());
        let short = Duration::from_millis(20);
        for owner in 0..4 {
            let name = format!("dead-{owner}.github.io");
            for _ in 0..4 {
                dead.push(resolver.room(&name).await.unwrap());
            }
            assert!(timeout(short, resolver.room(&name)).await.is_err(), "{name}");
        }
        // Those who wait for a name hold no place of the domain.
        dead.pop();
        let other = resolver.room("other.github.io").await.unwrap();
        assert!(timeout(short, resolver.room("third.github.io")).await.is_err());
        drop(other);
        drop(resolver.room("third.github.io").await.unwrap());
        drop(resolver.room("pictures.example").await.unwrap());
    }

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
