//! A receiver of webhooks on loopback that answers as a test says, or never.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// One request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

/// It lives as long as the runtime of the test.
pub(super) struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    arrived: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Receiver {
    /// Answers the n-th request, counted from 0, with what the function says: a status and further header lines. None is no
    /// answer at all.
    pub(super) async fn start(
        answer: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on("127.0.0.1", answer).await
    }

    /// On this address of loopback: one host takes so many exchanges at a time.
    pub(super) async fn start_on(
        host: &str,
        answer: impl Fn(usize) -> Option<&'static str> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let (tell, arrived) = mpsc::unbounded_channel();
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (all, answer, tell) = (Arc::clone(&all), Arc::clone(&answer), tell.clone());
                tokio::spawn(async move {
                    let (seen, mut stream) = read(stream).await;
                    let number = {
                        let mut all = all.lock().unwrap();
                        all.push(seen);
                        all.len() - 1
                    };
                    let _ = tell.send(());
                    let Some(head) = answer(number) else {
                        return std::future::pending().await;
                    };
                    let text = format!("HTTP/1.1 {head}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self {
            address,
            seen,
            arrived: tokio::sync::Mutex::new(arrived),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The next request.
    pub(super) async fn next(&self) -> Seen {
        let mut arrived = self.arrived.lock().await;
        in_time(arrived.recv()).await.unwrap();
        self.seen().pop().unwrap()
    }
}

async fn read(mut stream: TcpStream) -> (Seen, TcpStream) {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).await.unwrap_or(0);
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.split_once("\r\n\r\n").map(|(head, body)| Seen {
            head: head.to_owned(),
            body: body.to_owned(),
        });
        if let Some(seen) = whole
            && (seen.body.len() >= seen.header("content-length").parse().unwrap_or(0) || count == 0)
        {
            return (seen, stream);
        }
        assert!(count > 0, "a request that broke off: {text}");
    }
}
