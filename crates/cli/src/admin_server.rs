//! Health checks on an address of their own, on a thread of their own: they are answered when callers have taken every
//! connection of the other address, and when every thread behind it is busy.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use anyhow::Context as _;
use pentimento_api::{ApiConfig, RefusedConnections, ServerLimits};
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
    /// Takes the address that the settings say. One that somebody chose must be free; when the default is not, the server goes
    /// on without.
    pub(crate) fn bind(http: &HttpConfig) -> anyhow::Result<Option<TcpListener>> {
        let Some(address) = address(http) else {
            return Ok(None);
        };
        match TcpListener::bind(address) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if http.admin_listen.is_none() => {
                tracing::warn!(%address, %error, "no listener of its own for health checks; --admin-listen chooses another address, or none");
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot listen on {address} for health checks")),
        }
    }

    /// Answers there.
    pub(crate) fn start(
        listener: TcpListener,
        router: axum::Router,
        api: &ApiConfig,
        refused: RefusedConnections,
    ) -> anyhow::Result<Self> {
        Self::run(listener, router, ServerLimits::for_admin(api), refused)
    }

    fn run(
        listener: TcpListener,
        router: axum::Router,
        limits: ServerLimits,
        refused: RefusedConnections,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (close, closed) = oneshot::channel::<()>();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            pentimento_api::serve(listener, router, limits, refused, async move {
                // A dropped sender means the same: stop.
                let _ = closed.await;
            })
            .await
        };
        let run = move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "health checks are not answered any more");
            }
            // A thread that looks at a disk which does not answer would be waited for without end.
            runtime.shutdown_background();
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;
    use std::time::Duration;

    use axum::routing::get;

    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_does_not_hold_up_the_end() {
        const LONG: Duration = Duration::from_secs(60);
        let (entered, enters) = mpsc::channel();
        let (leave, leaves) = mpsc::channel::<()>();
        let leaves = std::sync::Mutex::new(Some(leaves));
        let stuck = move || {
            let (entered, leaves) = (entered.clone(), leaves.lock().unwrap().take().unwrap());
            async move {
                let look = move || {
                    entered.send(()).unwrap();
                    let _ = leaves.recv();
                };
                let _ = tokio::task::spawn_blocking(look).await;
            }
        };
        let stuck = std::sync::Arc::new(stuck);
        let router = axum::Router::new().route("/stuck", get(move || stuck()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = AdminServer::run(
            listener,
            router,
            ServerLimits::for_admin(&ApiConfig::new()),
            RefusedConnections::default(),
        )
        .unwrap();
        let mut caller = std::net::TcpStream::connect(server.address()).unwrap();
        caller
            .write_all(b"GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        enters.recv_timeout(LONG).unwrap();
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            drop(server);
            ended.send(()).unwrap();
        });
        let in_time = end.recv_timeout(LONG / 4);
        drop(leave);
        assert!(in_time.is_ok(), "the end waits for the disk");
    }
}
