//! Runs the router on a socket, with what `axum::serve` lacks: a time limit for the head of a request, a cap on open
//! connections, and a drain that ends.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::config::ApiConfig;

/// How much of the machine the callers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Time for the head of a request; an idle connection is closed after it too.
    pub header_timeout: Duration,
    /// Connections open at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// How long calls that are running when `shutdown` comes may take to end.
    pub drain_timeout: Duration,
}

impl From<&ApiConfig> for ServerLimits {
    fn from(config: &ApiConfig) -> Self {
        Self {
            header_timeout: config.header_timeout,
            max_connections: config.max_connections,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown` is ready; then accepts nothing more, lets running calls end, and returns.
///
/// # Errors
/// When the socket has no address any more. Errors of single connections end those connections only.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::debug!(%address, "serving");
    // HTTP/1.1 only: no client of either vendor speaks HTTP/2 without TLS, and a proxy in front can.
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some calls were still running when the time to stop was up");
    }
    Ok(())
}

/// The next connection and its place. Failing to accept (out of file descriptors, for example) waits and goes on.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Replies are written in one piece; waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection, trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const LIMITS: ServerLimits = ServerLimits {
        header_timeout: Duration::from_millis(200),
        max_connections: 2,
        drain_timeout: Duration::from_secs(5),
    };

    async fn start() -> (
        std::net::SocketAddr,
        oneshot::Sender<()>,
        JoinHandle<io::Result<()>>,
    ) {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow but done"
        };
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, router, LIMITS, async move {
            let _ = stopped.await;
        }));
        (address, stop, task)
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn a_head_that_never_ends_loses_its_connection() {
        let (address, _stop, _task) = start().await;
        // As many as there are places: one silent, one that stops within its head.
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        // The third waits for a place and gets it.
        let reply = tokio::time::timeout(Duration::from_secs(5), ask(address, "/"))
            .await
            .unwrap();
        assert!(reply.ends_with("here"), "{reply}");
        for stream in [&mut silent, &mut slow] {
            let mut rest = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
            assert!(ended.is_ok(), "the connection is still open");
        }
    }

    #[tokio::test]
    async fn stopping_lets_a_running_call_end() {
        let (address, stop, task) = start().await;
        let call = tokio::spawn(ask(address, "/slow"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        assert!(call.await.unwrap().ends_with("slow but done"));
        task.await.unwrap().unwrap();
        assert!(
            TcpStream::connect(address).await.is_err(),
            "nothing listens any more"
        );
    }
}
