//! A name server and a picture server that do whatever a test tells them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Resolver;

/// Answers from a table; a name with several answers gives one after the other and stays with the last.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeResolver {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    questions: Arc<AtomicUsize>,
    slow: bool,
}

impl FakeResolver {
    pub(super) fn always(name: &str, addresses: &[&str]) -> Self {
        Self::sequence(name, &[addresses])
    }

    pub(super) fn sequence(name: &str, answers: &[&[&str]]) -> Self {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        Self {
            answers: HashMap::from([(name.to_owned(), answers)]),
            ..Self::default()
        }
    }

    pub(super) fn slow() -> Self {
        Self {
            slow: true,
            ..Self::default()
        }
    }

    pub(super) fn and(mut self, name: &str, addresses: &[&str]) -> Self {
        self.answers.extend(Self::always(name, addresses).answers);
        self
    }

    pub(super) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolver for FakeResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.questions.fetch_add(1, Ordering::SeqCst);
        if self.slow {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let Some(answers) = self.answers.get(name) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "NXDOMAIN"));
        };
        Ok(answers[asked.min(answers.len() - 1)].clone())
    }
}

/// The head of a request as it came.
#[derive(Clone, Debug)]
pub(super) struct RequestHead(String);

impl RequestHead {
    pub(super) fn path(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }
}

/// What a server does with a request.
#[derive(Debug)]
pub(super) enum Told {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends the head, then a body without end.
    Endless { head: &'static str, chunked: bool },
    /// A good head, then one byte at a time without end.
    Trickle { every: Duration },
    /// Sends these bytes, then nothing, and does not close.
    Silence { after: &'static str },
}

impl Told {
    pub(super) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// A server on loopback that counts its connections. It ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Server {
    pub(super) async fn start(tell: impl Fn(RequestHead) -> Told + Send + Sync + 'static) -> Self {
        Self::start_with(None, tell).await
    }

    pub(super) async fn start_with(
        tls: Option<tokio_rustls::TlsAcceptor>,
        tell: impl Fn(RequestHead) -> Told + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (counted, tell) = (Arc::clone(&seen), Arc::new(tell));
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let (counted, tell, tls) = (Arc::clone(&counted), Arc::clone(&tell), tls.clone());
                tokio::spawn(async move {
                    let tell = |head: RequestHead| {
                        counted.requests.lock().unwrap().push(head.0.clone());
                        tell(head)
                    };
                    // A client that hangs up is what many tests are about.
                    let _ = match tls {
                        None => serve(stream, tell).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, tell).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        Self {
            address,
            seen,
            accepting,
        }
    }

    pub(super) async fn answering(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            answer.push_str(&format!("{name}: {value}\r\n"));
        }
        answer.push_str("\r\n");
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(body);
        Self::start(move |_| Told::Bytes(answer.clone())).await
    }

    pub(super) async fn answering_raw(answer: &'static str) -> Self {
        Self::start(move |_| Told::bytes(answer)).await
    }

    pub(super) fn url(&self, name: &str, path: &str) -> String {
        format!("http://{name}:{}{path}", self.address.port())
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    tell: impl Fn(RequestHead) -> Told,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    match tell(RequestHead(String::from_utf8_lossy(&head).into_owned())) {
        Told::Bytes(bytes) => stream.write_all(&bytes).await?,
        Told::Endless { head, chunked } => {
            stream.write_all(head.as_bytes()).await?;
            let part: &[u8] = if chunked { b"4\r\nxxxx\r\n" } else { b"xxxx" };
            loop {
                stream.write_all(part).await?;
            }
        }
        Told::Trickle { every } => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                stream.flush().await?;
                tokio::time::sleep(every).await;
            }
        }
        Told::Silence { after } => {
            stream.write_all(after.as_bytes()).await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
    stream.shutdown().await
}
