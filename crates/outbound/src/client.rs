//! The guarded client: resolve, check every answer, connect to what was checked, at every redirect again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{HeaderMap, StatusCode, header};
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::coding::{self, Coding};
use crate::connection::{self, Answer, Message, Patience, within};
use crate::destination::{Destination, DestinationHost};
use crate::host_limits::HostLimits;
use crate::resolver::{Resolver, SystemResolver};
use crate::{AddressGuard, OutboundError, UnreachableCause};

/// Redirects that are followed.
const MAX_REDIRECTS: u32 = 3;
/// Exchanges under way at a time; more wait, all waits of a call together for as long as its work may take.
const MAX_EXCHANGES: usize = 32;
/// Of them, those with one host, so that others have room beside a slow one.
const MAX_EXCHANGES_OF_A_HOST: usize = 8;
/// Those with one address, which may have many names.
const MAX_EXCHANGES_OF_AN_ADDRESS: usize = 16;

/// What one exchange may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Bytes of the body.
    pub max_bytes: u64,
    /// For each of: the name server's answer, a connection, the TLS handshake.
    pub patience: Duration,
    /// From the connection to the first line of the answer.
    pub answer: Duration,
    /// Between two parts of the body.
    pub idle: Duration,
    /// For the work of everything together, redirects included; and as much again for all waits until there is room for
    /// it. A call so ends within twice this time.
    pub total: Duration,
}

impl FetchLimits {
    /// 5 seconds to connect, 10 for an answer and between two parts, 30 in all, and 30 of waiting.
    #[must_use]
    pub const fn with_max_bytes(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            patience: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(30),
        }
    }
}

/// An answer that is no redirect, or one to something that was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body of a success (2xx), at most the allowed bytes; of anything else it is not read.
    pub body: Bytes,
    /// When the server wants to be asked again, as its `Retry-After` says.
    pub retry_after: Option<Duration>,
}

/// Reaches addresses that callers gave, and no others. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct GuardedClient {
    guard: AddressGuard,
    resolver: Arc<dyn Resolver>,
    tls: TlsConnectorDebug,
    exchanges: Semaphore,
    hosts: HostLimits,
    addresses: HostLimits,
}

impl GuardedClient {
    /// A client that asks the operating system for addresses and trusts Mozilla's root certificates.
    #[must_use]
    pub fn new(guard: AddressGuard) -> Self {
        Self::with(guard, Arc::new(SystemResolver::new()), connection::public_roots())
    }

    /// A client with a resolver of its own.
    #[must_use]
    pub fn with_resolver(guard: AddressGuard, resolver: Arc<dyn Resolver>) -> Self {
        Self::with(guard, resolver, connection::public_roots())
    }

    pub(crate) fn with(guard: AddressGuard, resolver: Arc<dyn Resolver>, roots: RootCertStore) -> Self {
        Self {
            guard,
            resolver,
            tls: TlsConnectorDebug(connection::tls_connector(roots)),
            exchanges: Semaphore::new(MAX_EXCHANGES),
            hosts: HostLimits::new(MAX_EXCHANGES_OF_A_HOST),
            addresses: HostLimits::new(MAX_EXCHANGES_OF_AN_ADDRESS),
        }
    }

    /// Which addresses this client may reach, for checking a URL before it is accepted.
    #[must_use]
    pub const fn guard(&self) -> &AddressGuard {
        &self.guard
    }

    /// Gets what is at `url`, after at most three redirects.
    ///
    /// # Errors
    /// When the address is refused or cannot be reached, or when the answer is beyond `limits`.
    pub async fn get(&self, url: &str, limits: &FetchLimits) -> Result<Reply, OutboundError> {
        let destination =
            Destination::parse(url, &self.guard).map_err(|problem| OutboundError::Url { problem })?;
        let mut left = Left::new(limits.total);
        Box::pin(self.follow(destination, limits, &mut left)).await
    }

    /// Hands `body` over to `url`. A redirect is an answer like any other, and no answer's body is read.
    ///
    /// # Errors
    /// When the address is refused or cannot be reached, or when the answer is beyond `limits`.
    pub async fn post(
        &self,
        url: &str,
        (headers, body): (HeaderMap, Bytes),
        limits: &FetchLimits,
    ) -> Result<Reply, OutboundError> {
        let destination =
            Destination::parse(url, &self.guard).map_err(|problem| OutboundError::Url { problem })?;
        let mut left = Left::new(limits.total);
        let message = Message::post(headers, body);
        let answer = Box::pin(self.hop(&destination, &message, limits, &mut left)).await?;
        let (Hop::End(reply) | Hop::Redirect(_, reply)) = answer;
        Ok(reply)
    }

    async fn follow(
        &self,
        mut destination: Destination,
        limits: &FetchLimits,
        left: &mut Left,
    ) -> Result<Reply, OutboundError> {
        let message = Message::get();
        for _ in 0..=MAX_REDIRECTS {
            let hop = self.hop(&destination, &message, limits, left).await?;
            let location = match hop {
                Hop::End(reply) => return Ok(reply),
                Hop::Redirect(location, _) => location,
            };
            destination = destination
                .redirected(&location, &self.guard)
                .map_err(|problem| OutboundError::Redirect { problem })?;
        }
        Err(OutboundError::TooManyRedirects { limit: MAX_REDIRECTS })
    }

    /// One exchange, in a place of its host, then of its address, then of all: who waits for a slow host takes no place
    /// from others.
    async fn hop(
        &self,
        destination: &Destination,
        message: &Message,
        limits: &FetchLimits,
        left: &mut Left,
    ) -> Result<Hop, OutboundError> {
        let _host = left
            .wait(self.hosts.place(&destination.host().to_string()))
            .await?;
        let addresses = left.work(self.lookup(destination, limits)).await?;
        let addresses = addresses.map_err(OutboundError::Unreachable)?;
        let first = addresses.first().map(|address| address.ip().to_string());
        let _address = left
            .wait(self.addresses.place(&first.unwrap_or_default()))
            .await?;
        let _of_all = left.wait(self.exchanges.acquire()).await?;
        // Large, and it would be carried through every future around it.
        let exchange = Box::pin(self.exchange((destination, &addresses), message, limits));
        left.work(exchange).await?
    }

    async fn exchange(
        &self,
        to: (&Destination, &[SocketAddr]),
        message: &Message,
        limits: &FetchLimits,
    ) -> Result<Hop, OutboundError> {
        let patience = Patience {
            connect: limits.patience,
            answer: limits.answer,
        };
        let answer = connection::ask(to, message, &self.tls.0, patience)
            .await
            .map_err(OutboundError::Unreachable)?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        let mut reply = Reply {
            status: status.as_u16(),
            body: Bytes::new(),
            retry_after: retry_after(headers),
        };
        if let Some(location) = redirect_target(status, headers) {
            return Ok(Hop::Redirect(location, reply));
        }
        if status.is_success() && message.wants_body() {
            reply.body = read_body(answer, limits).await?;
        }
        Ok(Hop::End(reply))
    }

    /// Every address of the destination, all of them checked: one that is refused refuses the whole name, since a
    /// name that points inside as well as outside is an attack or a mistake.
    async fn lookup(
        &self,
        destination: &Destination,
        limits: &FetchLimits,
    ) -> Result<Vec<SocketAddr>, UnreachableCause> {
        let found = match destination.host() {
            DestinationHost::Address(address) => vec![*address],
            DestinationHost::Name(name) => {
                self.guard.check_name(name)?;
                within(limits.patience, "the name server", self.resolver.resolve(name))
                    .await?
                    .map_err(UnreachableCause::Resolve)?
            }
        };
        let addresses: Vec<_> = found
            .into_iter()
            .map(|address| SocketAddr::new(address, destination.port()))
            .collect();
        for address in &addresses {
            self.guard.check_address(*address)?;
        }
        Ok(addresses)
    }
}

/// Where a redirect leads; None for any other status, and for a redirect that names no place.
fn redirect_target(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let redirects = matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = headers.get(header::LOCATION).filter(|_| redirects)?;
    // Bytes beyond ASCII are read as UTF-8, as browsers do; the URL parser escapes them.
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// `Retry-After` in seconds. A date counts from the answer's own, so that nobody's clock matters.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = httpdate::parse_http_date(text(header::DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

async fn read_body(mut answer: Answer, limits: &FetchLimits) -> Result<Bytes, OutboundError> {
    let codings = coding::codings(answer.response.headers())?;
    let too_large = OutboundError::TooLarge {
        limit_bytes: limits.max_bytes,
    };
    let announced = hyper::body::Body::size_hint(answer.response.body()).lower();
    if announced > limits.max_bytes {
        return Err(too_large);
    }
    // Grows with what really comes, never by what a header claims.
    let mut body = BytesMut::new();
    loop {
        let frame = timeout(limits.idle, answer.response.body_mut().frame())
            .await
            .map_err(|_| OutboundError::TimedOut)?;
        let Some(frame) = frame else {
            return unpacked(body.freeze(), codings, limits.max_bytes).await;
        };
        let Ok(data) = frame.map_err(OutboundError::BrokenOff)?.into_data() else {
            continue; // Trailers.
        };
        if (body.len() + data.len()) as u64 > limits.max_bytes {
            return Err(too_large);
        }
        body.extend_from_slice(&data);
    }
}

async fn unpacked(body: Bytes, codings: Vec<Coding>, limit_bytes: u64) -> Result<Bytes, OutboundError> {
    if codings.is_empty() {
        return Ok(body);
    }
    let unpack = move || coding::unpack(body, &codings, limit_bytes);
    let unpacked = tokio::task::spawn_blocking(unpack).await;
    // It does not panic; if it does, the file is the reason.
    unpacked.unwrap_or(Err(OutboundError::Compressed { coding: "damaged" }))
}

/// What one exchange leads to.
#[derive(Debug)]
enum Hop {
    End(Reply),
    /// Where it leads, and the answer itself.
    Redirect(String, Reply),
}

/// The time that is left for all exchanges of a call: to work, and beside that to wait for places.
struct Left {
    work: Duration,
    waiting: Duration,
}

impl Left {
    const fn new(total: Duration) -> Self {
        Self {
            work: total,
            waiting: total,
        }
    }

    async fn work<T>(&mut self, work: impl Future<Output = T>) -> Result<T, OutboundError> {
        let done = spend(&mut self.work, work).await;
        done.map_err(|_| OutboundError::TimedOut)
    }

    async fn wait<T>(&mut self, place: impl Future<Output = T>) -> Result<T, OutboundError> {
        let taken = spend(&mut self.waiting, place).await;
        taken.map_err(|_| OutboundError::Busy)
    }
}

async fn spend<T>(left: &mut Duration, on: impl Future<Output = T>) -> Result<T, Elapsed> {
    let begun = tokio::time::Instant::now();
    let done = timeout(*left, on).await;
    *left = left.saturating_sub(begun.elapsed());
    done
}

/// `TlsConnector` has no `Debug` of its own.
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

#[cfg(test)]
mod tests;
