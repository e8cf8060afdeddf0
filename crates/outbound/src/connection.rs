//! One connection to an address that has been checked, and one request on it.
//!
//! The socket is opened to the very address that the guard saw: no second lookup, no proxy, no reuse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::UnreachableCause;
use crate::destination::{Destination, DestinationHost};

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 4;
/// Bound of an answer's head.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Bound of an answer's header lines.
const MAX_HEADERS: usize = 100;

const USER_AGENT: &str = concat!("pentimento/", env!("CARGO_PKG_VERSION"));

/// A server's answer whose body is still on its way. The connection ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Drives the connection while the body is read.
    _driver: JoinSet<()>,
}

/// What is sent to a destination.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    /// Asks for a picture.
    pub(crate) fn get() -> Self {
        let accept = [
            (header::ACCEPT, "image/*,*/*;q=0.5"),
            (header::ACCEPT_ENCODING, "identity"),
        ];
        let accept = accept.map(|(name, value)| (name, header::HeaderValue::from_static(value)));
        Self {
            method: Method::GET,
            headers: accept.into_iter().collect(),
            body: Bytes::new(),
        }
    }

    /// Hands something over.
    pub(crate) const fn post(headers: HeaderMap, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            headers,
            body,
        }
    }

    /// Whether what the answer holds is of interest.
    pub(crate) fn wants_body(&self) -> bool {
        self.method == Method::GET
    }
}

/// How long the parts of an exchange may take, each for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// One address's connection; the TLS handshake.
    pub(crate) connect: Duration,
    /// From the connection to the head of the answer.
    pub(crate) answer: Duration,
}

/// Opens a connection to one of `addresses`, in order, and sends the message; returns once the answer's head is there.
pub(crate) async fn ask(
    (destination, addresses): (&Destination, &[SocketAddr]),
    message: &Message,
    tls: &TlsConnector,
    patience: Patience,
) -> Result<Answer, UnreachableCause> {
    let Patience {
        connect: patience,
        answer,
    } = patience;
    let stream = connect(addresses, patience).await?;
    let request = async {
        if destination.is_secure() {
            let handshake = tls.connect(server_name(destination)?, stream);
            let stream = within(patience, "the TLS handshake", handshake)
                .await?
                .map_err(UnreachableCause::Tls)?;
            exchange(stream, destination, message).await
        } else {
            exchange(stream, destination, message).await
        }
    };
    within(answer, "the answer", request).await?
}

async fn connect(addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, UnreachableCause> {
    let mut last = UnreachableCause::NoAddress;
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match within(patience, "the connection", TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = UnreachableCause::Connect(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn exchange<S>(
    stream: S,
    destination: &Destination,
    message: &Message,
) -> Result<Answer, UnreachableCause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UnreachableCause::Http)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its error arrives at the request or at the body, too.
        let _ = connection.await;
    });
    let mut request = Request::builder()
        .method(message.method.clone())
        .uri(destination.path_and_query())
        .header(header::HOST, destination.authority())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Full::new(message.body.clone()))
        .map_err(|error| UnreachableCause::Connect(io::Error::other(error)))?;
    request.headers_mut().extend(message.headers.clone());
    let response = sender
        .send_request(request)
        .await
        .map_err(UnreachableCause::Http)?;
    Ok(Answer {
        response,
        _driver: driver,
    })
}

fn server_name(destination: &Destination) -> Result<ServerName<'static>, UnreachableCause> {
    match destination.host() {
        DestinationHost::Address(address) => Ok(ServerName::from(*address)),
        DestinationHost::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|error| UnreachableCause::Tls(io::Error::other(error)))
        }
    }
}

pub(crate) async fn within<F: Future>(
    patience: Duration,
    phase: &'static str,
    what: F,
) -> Result<F::Output, UnreachableCause> {
    timeout(patience, what)
        .await
        .map_err(|_| UnreachableCause::TimedOut { phase })
}

/// Mozilla's root certificates, compiled in, so that a machine needs nothing installed.
pub(crate) fn public_roots() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

/// TLS 1.2 and 1.3 with ring. The provider is named here rather than installed for the process, which belongs to
/// everybody.
pub(crate) fn tls_connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
