//! Health checks on an address of their own, on a thread of their own: they are answered when callers have taken every
//! connection of the other address, and when every thread behind it is busy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use anyhow::Context as _;
use pentimento_api::{ApiConfig, ServerLimits};
use tokio::sync::oneshot;

use crate::config::{AdminListen, HttpConfig};

/// The running listener; it ends with this value.
#[derive(Debug)]
pub(crate) struct AdminServer {
    address: SocketAddr,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Starts it where the settings say. An address that somebody chose must be free; when the default is not, the server
    /// goes on without.
    pub(crate) fn start(
        http: &HttpConfig,
        router: axum::Router,
        api: &ApiConfig,
    ) -> anyhow::Result<Option<Self>> {
        let Some(address) = address(http) else {
            return Ok(None);
        };
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) if http.admin_listen.is_none() => {
                tracing::warn!(%address, %error, "no listener of its own for health checks; --admin-listen chooses another address, or none");
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot listen on {address} for health checks"));
            }
        };
        Self::run(listener, router, ServerLimits::for_admin(api)).map(Some)
    }

    fn run(listener: TcpListener, router: axum::Router, limits: ServerLimits) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (close, closed) = oneshot::channel::<()>();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            pentimento_api::serve(listener, router, limits, async move {
                // A dropped sender means the same: stop.
                let _ = closed.await;
            })
            .await
        };
        let run = move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "health checks are not answered any more");
            }
        };
        let thread = std::thread::Builder::new()
            .name("pentimento-admin".to_owned())
            .spawn(run)
            .context("a thread for health checks could not be started")?;
        Ok(Self {
            address,
            close: Some(close),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        drop(self.close.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it is in the log already.
            let _ = thread.join();
        }
    }
}

/// Where it is to listen: the port after the server's own, or any when that is any.
pub(crate) fn address(http: &HttpConfig) -> Option<SocketAddr> {
    match http.admin_listen {
        Some(AdminListen::None) => None,
        Some(AdminListen::At(address)) => Some(address),
        None => {
            let own = http.listen.port();
            let port = if own == 0 { 0 } else { own.checked_add(1)? };
            Some((Ipv4Addr::LOCALHOST, port).into())
        }
    }
}
