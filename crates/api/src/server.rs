//! Runs the router on a socket, with what `axum::serve` lacks: bounds on connections in all and from one address, time
//! limits for heads, idle connections and slow readers, and a drain that ends.

mod counted;
mod paced;
mod refused_connections;
mod seats;

use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::client_address::Peer;
use crate::config::{ApiConfig, LeastSpeed};
use counted::Counted;
use paced::Paced;
pub use refused_connections::RefusedConnections;
use seats::{Refused, Seat, Seats};

/// The largest head of a call, in bytes, and what is read at once.
const MAX_HEAD: usize = 128 * 1024;
/// After an accept that failed, for want of file descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// Between two lines in the log about the same trouble.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// How much of the machine the callers may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Time for the head of a call, from its first byte.
    pub header_timeout: Duration,
    /// After so long without a call a connection is closed.
    pub idle_timeout: Duration,
    /// Connections open at once.
    pub max_connections: usize,
    /// Of them from one address.
    pub max_connections_per_address: usize,
    /// How slowly a reply may be read.
    pub least_speed: LeastSpeed,
    /// How long calls that are running when `shutdown` comes may take to end.
    pub drain_timeout: Duration,
}

impl From<&ApiConfig> for ServerLimits {
    fn from(config: &ApiConfig) -> Self {
        Self {
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
            least_speed: config.least_speed,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerLimits {
    /// For the listener of health checks: few connections, any of which may be from one address.
    #[must_use]
    pub fn for_admin(config: &ApiConfig) -> Self {
        Self {
            max_connections: 64,
            max_connections_per_address: 64,
            drain_timeout: Duration::from_secs(1),
            ..Self::from(config)
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
    refused_connections: RefusedConnections,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::debug!(%address, "serving");
    let graceful = GracefulShutdown::new();
    let seats = Seats::new(limits.max_connections, limits.max_connections_per_address);
    let mut complaints = Complaints::default();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                complaints.say(|| tracing::warn!(%error, "cannot accept a connection, trying again"));
                seats.make_room();
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match seats.enter(peer.ip()) {
            Ok(seat) => {
                let caller = (stream, Peer(peer.ip()));
                let connection = converse(caller, seat, router.clone(), limits, &graceful);
                tokio::spawn(connection);
            }
            Err(refused) => {
                refused_connections.add(refused);
                complaints.say(|| tracing::warn!(%peer, ?refused, "too many connections"));
                refuse(stream, refused);
            }
        }
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

/// One connection, from its first call to its end.
fn converse(
    (stream, peer): (TcpStream, Peer),
    seat: Seat,
    router: Router,
    limits: ServerLimits,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
    // Replies are written in one piece; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(&seat.connection);
    let socket = Paced::new(
        stream,
        Arc::clone(&connection),
        limits.header_timeout,
        limits.least_speed,
    );
    let service = Counted {
        router,
        connection: Arc::clone(&connection),
        peer,
    };
    // HTTP/1.1 only: no client of either vendor speaks HTTP/2 without TLS, and a proxy in front can.
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_buf_size(MAX_HEAD)
        // The time until the head is there, rest included; the head's own time is `Paced`'s.
        .header_read_timeout(limits.idle_timeout);
    let calls = graceful.watch(builder.serve_connection(TokioIo::new(socket), service));
    async move {
        tokio::select! {
            ended = calls => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = connection.closed() => tracing::debug!("a connection made room for another one"),
        }
        drop(seat);
    }
}

/// Says why, as well as one can without waiting, and closes.
fn refuse(stream: TcpStream, refused: Refused) {
    let whose = match refused {
        Refused::Address => "your address has as many connections open as one may",
        Refused::Total => "the server has as many connections open as it may",
    };
    let body = format!(
        r#"{{"error":{{"kind":"overloaded","message":"{whose}; close some or come back later","request_id":""}}}}"#
    );
    let reply = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Retry-After: 2\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    if let Ok(mut stream) = stream.into_std() {
        // The socket does not wait, so neither does this. What was sent before is read away: unread bytes would make the
        // kernel take the reply back.
        let _ = stream.write_all(reply.as_bytes());
        let _ = stream.read(&mut [0; 16 * 1024]);
    }
}

/// Lets a complaint through from time to time: whoever floods us must not flood the log.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
}

impl Complaints {
    fn say(&mut self, log: impl FnOnce()) {
        if self.last.is_none_or(|last| last.elapsed() >= BETWEEN_COMPLAINTS) {
            self.last = Some(Instant::now());
            log();
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
        idle_timeout: Duration::from_secs(60),
        max_connections: 2,
        max_connections_per_address: 2,
        least_speed: LeastSpeed {
            bytes_per_second: 1000,
            grace: Duration::from_millis(300),
        },
        drain_timeout: Duration::from_secs(5),
    };

    /// More than the kernel keeps for two programs of one machine.
    const LARGE: usize = 32 << 20;

    async fn start() -> (
        std::net::SocketAddr,
        oneshot::Sender<()>,
        JoinHandle<io::Result<()>>,
    ) {
        start_with(LIMITS).await
    }

    async fn start_with(
        limits: ServerLimits,
    ) -> (
        std::net::SocketAddr,
        oneshot::Sender<()>,
        JoinHandle<io::Result<()>>,
    ) {
        start_counting(limits, RefusedConnections::default()).await
    }

    async fn start_counting(
        limits: ServerLimits,
        refused: RefusedConnections,
    ) -> (
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
            .route("/slow", get(slow))
            .route("/large", get(|| async { vec![b'x'; LARGE] }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, router, limits, refused, async move {
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

    async fn is_closed(stream: &mut TcpStream) -> bool {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok()
    }

    #[tokio::test]
    async fn a_head_that_never_ends_loses_its_connection() {
        let (address, _stop, _task) = start().await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost").await.unwrap();
        assert!(is_closed(&mut slow).await, "the connection is still open");
        // The same in a later call of a connection.
        let mut later = TcpStream::connect(address).await.unwrap();
        later
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(LIMITS.header_timeout * 2).await;
        // It has rested for longer than a head may take, and is still there.
        later
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(LIMITS.header_timeout / 2).await;
        later.write_all(b"GET").await.unwrap();
        let mut replies = String::new();
        tokio::time::timeout(Duration::from_secs(10), later.read_to_string(&mut replies))
            .await
            .expect("the connection is still open")
            .unwrap();
        assert_eq!(replies.matches("here").count(), 2, "{replies}");
    }

    #[tokio::test]
    async fn who_rests_makes_room_and_who_has_no_room_is_told() {
        let counters = RefusedConnections::default();
        let (address, _stop, _task) = start_counting(LIMITS, counters.clone()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        // The one that came first goes first.
        assert!(ask(address, "/").await.ends_with("here"));
        assert!(is_closed(&mut silent).await);
        other
            .write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let busy = tokio::spawn(ask(address, "/slow"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refused = ask(address, "/").await;
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        assert!(
            refused.contains("your address") && refused.contains("Retry-After: 2"),
            "{refused}"
        );
        assert_eq!(counters.counts(), (1, 0));
        assert!(busy.await.unwrap().ends_with("slow but done"));
    }

    #[tokio::test]
    async fn who_is_still_reading_does_not_rest() {
        let patient = LeastSpeed {
            bytes_per_second: 1000,
            grace: Duration::from_secs(60),
        };
        let (address, _stop, _task) = start_with(ServerLimits {
            least_speed: patient,
            ..LIMITS
        })
        .await;
        let mut reader = TcpStream::connect(address).await.unwrap();
        reader
            .write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut reply = vec![0; 1000];
        reader.read_exact(&mut reply).await.unwrap();
        // By now the handler has ended, and its reply waits for the socket.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert!(ask(address, "/").await.ends_with("here"));
        assert!(is_closed(&mut silent).await, "somebody else made room");
        reader.read_to_end(&mut reply).await.unwrap();
        assert!(reply.len() > LARGE, "{}", reply.len());
    }

    #[tokio::test]
    async fn who_does_not_read_its_reply_loses_its_connection() {
        let (address, _stop, _task) = start().await;
        let request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        tokio::time::sleep(LIMITS.least_speed.grace * 5).await;
        let mut cut = Vec::new();
        // Cut off with a reset or an end, as the kernel likes.
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut cut))
            .await
            .expect("the connection is still open");
        assert!(cut.len() < LARGE, "{}", cut.len());
        // Who reads with pauses shorter than the grace gets it all.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut whole = Vec::new();
        let mut piece = vec![0; 4 << 20];
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            whole.extend_from_slice(&piece[..count]);
            if whole.len() < (4 << 20) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        assert!(whole.len() > LARGE, "{}", whole.len());
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
