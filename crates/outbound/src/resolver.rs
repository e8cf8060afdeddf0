//! Names into addresses, behind a trait so that a test can be a hostile name server.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

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
}

/// The system's lookup cannot be interrupted: a name server that never answers keeps a thread after the caller has
/// gone. This bounds how many, so that such names cannot take the threads that decode pictures.
const MAX_LOOKUPS: usize = 16;

impl SystemResolver {
    /// With room for a bounded number of lookups at a time.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.lookups)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let name = name.to_owned();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let addresses = (name.as_str(), 0_u16).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
        .await
        .map_err(io::Error::other)?
    }
}
