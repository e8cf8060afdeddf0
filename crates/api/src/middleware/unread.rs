//! Reads away what a handler left unread of a body, before its reply goes out.
//!
//! A connection with unread bytes is reset when it is closed, and a caller who is still sending then sees a broken pipe
//! instead of the refusal (nginx's `lingering_close` has the same reason). The bytes are dropped as they come, up to a
//! bound. A caller who waits for `100 Continue` has sent nothing and is answered at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;

/// For all of it. Longer only helps a caller who will not read the reply either.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pieces.
const IDLE: Duration = Duration::from_secs(1);

/// A body that stays within reach while the handler reads it.
#[derive(Clone)]
struct SharedBody {
    rest: Arc<Mutex<Option<BodyDataStream>>>,
    begun: Arc<AtomicBool>,
}

impl SharedBody {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, axum::Error>>> {
        self.begun.store(true, Ordering::Relaxed);
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        rest.as_mut()
            .map_or(Poll::Ready(None), |rest| rest.poll_next_unpin(context))
    }

    fn take(&self) -> Option<BodyDataStream> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Runs the rest of the call, then reads at most `limit` bytes more of its body.
pub(super) async fn discard(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let shared = SharedBody {
        rest: Arc::new(Mutex::new(Some(body.into_data_stream()))),
        begun: Arc::new(AtomicBool::new(false)),
    };
    let reader = shared.clone();
    let body = Body::from_stream(futures::stream::poll_fn(move |context| reader.poll(context)));
    let response = next.run(Request::from_parts(parts, body)).await;
    if let Some(rest) = shared.take()
        && (!waits || shared.begun.load(Ordering::Relaxed))
    {
        // However it ends, the reply is due.
        let _ = tokio::time::timeout(PATIENCE, read_away(rest, limit)).await;
    }
    response
}

async fn read_away(mut rest: BodyDataStream, limit: usize) {
    let mut read = 0;
    while read <= limit
        && let Ok(Some(Ok(piece))) = tokio::time::timeout(IDLE, rest.next()).await
    {
        read += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{ApiConfig, RefusedConnections, ServerLimits, serve};

    /// More than the kernel holds between two programs of one machine.
    const MEBIBYTES: usize = 24;

    async fn server() -> std::net::SocketAddr {
        let router = Router::new()
            .route("/unread", post(|| async { (StatusCode::FORBIDDEN, "no") }))
            .route("/read", post(|body: Bytes| async move { body.len().to_string() }))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .layer(from_fn_with_state(MEBIBYTES << 21, discard));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ServerLimits::from(&ApiConfig::new());
        tokio::spawn(serve(
            listener,
            router,
            limits,
            RefusedConnections::default(),
            std::future::pending(),
        ));
        address
    }

    #[tokio::test]
    async fn a_caller_who_sends_it_all_reads_the_refusal() {
        let address = server().await;
        for (path, end) in [("/unread", "no"), ("/read", "25165824")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let length = MEBIBYTES << 20;
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..MEBIBYTES {
                stream.write_all(&piece).await.expect("the server takes it");
            }
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.ends_with(end), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_caller_who_waits_is_answered_at_once() {
        let mut stream = TcpStream::connect(server().await).await.unwrap();
        let head =
            "POST /unread HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = vec![0; 12];
        tokio::time::timeout(IDLE / 2, stream.read_exact(&mut reply))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply, b"HTTP/1.1 403");
    }
}
