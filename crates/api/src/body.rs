//! Reads a request's body within bytes and seconds, and within the memory that all bodies share. Nothing is allocated by
//! what a header claims.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::Bytes;
use futures::StreamExt as _;
use pentimento_types::{ImageSource, Inputs};
use tokio::time::Instant;

use crate::config::ApiConfig;

mod budget;
mod buffer;
mod error;

use buffer::Buffer;

pub(crate) use budget::{BodyBudget, BodyMemory, Sender};
pub(crate) use error::BodyError;

/// A body that has arrived, and the room that it takes.
pub(crate) struct ReadBody {
    bytes: Bytes,
    memory: BodyMemory,
}

impl std::fmt::Debug for ReadBody {
    // Bodies hold keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReadBody({} bytes)", self.bytes.len())
    }
}

impl ReadBody {
    /// The bytes.
    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the server knows who sent it.
    pub(crate) fn is_identified(&self) -> bool {
        self.memory.is_identified()
    }

    /// The sender has said who it is.
    pub(crate) fn identify_sender(&mut self) {
        self.memory.identify_sender();
    }

    /// Looks at the bytes, with room for `copies` times as many beside them for the time of the look.
    pub(crate) fn look<T>(&mut self, copies: usize, look: impl FnOnce(&[u8]) -> T) -> Result<T, BodyError> {
        self.memory.grow(self.bytes.len().saturating_mul(copies))?;
        let seen = look(&self.bytes);
        self.memory.shrink_to(self.bytes.len());
        Ok(seen)
    }

    /// The bytes, with room for `copies` times as many beside them, which is what a parser makes of them. Whoever parses
    /// drops the bytes as soon as it can, and shrinks the memory to what is left.
    pub(crate) fn with_room(mut self, copies: usize) -> Result<(Bytes, BodyMemory), BodyError> {
        self.memory.grow(self.bytes.len().saturating_mul(copies))?;
        Ok((self.bytes, self.memory))
    }
}

/// The whole body, or why not.
///
/// `watch` sees every piece as it arrives; it may tell the memory that the sender is identified by now, or end the reading.
pub(crate) async fn read<E: From<BodyError>>(
    headers: &HeaderMap,
    body: Body,
    config: &ApiConfig,
    memory: BodyMemory,
    watch: impl FnMut(&[u8], &mut BodyMemory) -> Result<(), E>,
) -> Result<ReadBody, E> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes())
            .chars()
            .take(40)
            .collect();
        return Err(BodyError::Compressed { encoding }.into());
    }
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|value| value.parse().ok());
    let whole = collect(body, declared, config, memory, watch);
    tokio::time::timeout(config.body_timeout, whole)
        .await
        .map_err(|_| BodyError::TooSlow)?
}

/// The bytes of the files that a call has inside.
pub(crate) fn inline_bytes(inputs: &Inputs<ImageSource>) -> usize {
    let file = |(_, image): (_, &ImageSource)| match image {
        ImageSource::Inline(bytes) => bytes.len(),
        ImageSource::Url(_) => 0,
    };
    inputs.iter().map(file).sum()
}

/// Runs work that may take milliseconds (base64 of 40 MB, a look at many files) away from the async threads.
/// A panic inside goes on here, where the middleware catches it.
pub(crate) async fn off_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(match error.try_into_panic() {
            Ok(panic) => panic,
            Err(cancelled) => Box::new(cancelled.to_string()),
        }),
    }
}

async fn collect<E: From<BodyError>>(
    body: Body,
    declared: Option<usize>,
    config: &ApiConfig,
    mut memory: BodyMemory,
    mut watch: impl FnMut(&[u8], &mut BodyMemory) -> Result<(), E>,
) -> Result<ReadBody, E> {
    let limit = memory.budget().largest_body();
    let mut pieces = body.into_data_stream();
    let mut whole = Buffer::new(declared.unwrap_or(limit).min(limit));
    let start = Instant::now();
    loop {
        let due = start + config.least_speed.time_for(whole.len());
        let still = Instant::now() + config.body_idle_timeout;
        let piece = tokio::time::timeout_at(due.min(still), pieces.next());
        let Some(piece) = piece.await.map_err(|_| BodyError::TooSlow)? else {
            break;
        };
        let piece = piece.map_err(|_| BodyError::Broken)?;
        if whole.len() + piece.len() > limit {
            return Err(BodyError::TooLarge { limit }.into());
        }
        // The HTTP library holds callers to the length that they declare; whoever hands us more has no such library.
        if declared.is_some_and(|declared| whole.len() + piece.len() > declared) {
            return Err(BodyError::Broken.into());
        }
        watch(&piece, &mut memory)?;
        memory.grow(piece.len())?;
        whole.push(&piece)?;
    }
    let bytes = whole.into_bytes();
    Ok(ReadBody { bytes, memory })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pentimento_types::{MemoryBudget, MemoryLedger, MemoryUse};

    use super::*;
    use crate::config::LeastSpeed;

    fn config() -> ApiConfig {
        ApiConfig {
            body_idle_timeout: Duration::from_millis(40),
            ..ApiConfig::new()
        }
    }

    /// Room for `room` bytes, and bodies of at most `largest`.
    fn budget(room: u64, largest: usize) -> (Arc<MemoryLedger>, Arc<BodyBudget>) {
        let ledger = MemoryLedger::new(MemoryBudget {
            bodies: room,
            ..MemoryBudget::UNBOUNDED
        });
        let budget = BodyBudget::new(Arc::clone(&ledger), largest, 1);
        (ledger, Arc::new(budget))
    }

    async fn read_within(
        budget: &Arc<BodyBudget>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<ReadBody, BodyError> {
        let memory = BodyMemory::new(budget, Sender::Identified)?;
        read(headers, body, &config(), memory, |_, _| Ok(())).await
    }

    async fn read_plainly(body: Body) -> Result<Bytes, BodyError> {
        let read = read_within(&budget(1 << 20, 10).1, &HeaderMap::new(), body).await;
        read.map(|body| body.bytes)
    }

    /// A body in pieces of 1000 bytes.
    fn pieces(count: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; 1000]);
        let all = std::iter::repeat_n(piece, count).map(Ok::<_, std::convert::Infallible>);
        Body::from_stream(futures::stream::iter(all))
    }

    #[tokio::test]
    async fn bytes_and_seconds_are_limited() {
        assert_eq!(
            read_plainly(Body::from("0123456789")).await.unwrap(),
            "0123456789"
        );
        assert_eq!(
            read_plainly(Body::from("0123456789a")).await,
            Err(BodyError::TooLarge { limit: 10 })
        );
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(
            read_plainly(Body::from_stream(never)).await,
            Err(BodyError::TooSlow)
        );
    }

    #[tokio::test]
    async fn a_body_that_trickles_is_too_slow_long_before_its_whole_time() {
        let trickle = |count: usize, pause: Duration| {
            let pieces = futures::stream::unfold((), move |()| async move {
                tokio::time::sleep(pause).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b"xxxxxxxxxx")), ()))
            });
            Body::from_stream(pieces.take(count))
        };
        let config = ApiConfig {
            least_speed: LeastSpeed {
                bytes_per_second: 10,
                grace: Duration::from_millis(500),
            },
            ..ApiConfig::new()
        };
        let budget = budget(1 << 20, 1 << 20).1;
        let read = async |body| {
            let memory = BodyMemory::new(&budget, Sender::Identified).unwrap();
            let body = read(&HeaderMap::new(), body, &config, memory, |_, _| Ok(())).await;
            body.map(|body| body.bytes.len())
        };
        // Longer than the grace, and fast enough.
        let steady = trickle(100, Duration::from_millis(10));
        assert_eq!(read(steady).await, Ok(1000));
        // Its pieces earn a second each and take three; the whole would take ten minutes.
        let slow = trickle(200, Duration::from_secs(3));
        let ended = tokio::time::timeout(Duration::from_secs(60), read(slow)).await;
        assert_eq!(ended.unwrap(), Err(BodyError::TooSlow));
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_unread() {
        let headers = [(CONTENT_ENCODING, "gzip".parse().unwrap())]
            .into_iter()
            .collect();
        let refused = read_within(&budget(1 << 20, 10).1, &headers, Body::from("x")).await;
        assert!(matches!(refused, Err(BodyError::Compressed { .. })));
    }

    #[tokio::test]
    async fn bytes_are_reserved_as_they_arrive_and_come_back() {
        let (ledger, budget) = budget(200_000, 200_000);
        let used = || ledger.held(MemoryUse::Bodies);
        let claims_much = [(CONTENT_LENGTH, "60000000".parse().unwrap())]
            .into_iter()
            .collect();
        let small = read_within(&budget, &claims_much, pieces(40)).await.unwrap();
        assert_eq!((small.bytes.len(), used()), (40_000, 40_000));
        let claims_right = [(CONTENT_LENGTH, "100000".parse().unwrap())]
            .into_iter()
            .collect();
        let right = read_within(&budget, &claims_right, pieces(100)).await.unwrap();
        assert_eq!(used(), 140_000);
        let refused = read_within(&budget, &claims_right, pieces(100)).await;
        assert_eq!(refused.unwrap_err(), BodyError::NoRoom);
        assert_eq!(used(), 140_000);
        drop(small);
        let (bytes, memory) = right.with_room(1).unwrap();
        assert_eq!((bytes.len(), used()), (100_000, 200_000));
        drop(memory);
        assert_eq!(used(), 0);
    }

    #[tokio::test]
    async fn a_watcher_ends_the_reading() {
        let (ledger, budget) = budget(1 << 20, 1 << 20);
        let memory = BodyMemory::new(&budget, Sender::Unidentified).unwrap();
        let mut seen = 0;
        let watch = |piece: &[u8], _: &mut BodyMemory| {
            seen += piece.len();
            if seen > 3000 {
                Err(BodyError::Broken)
            } else {
                Ok(())
            }
        };
        let ended = read(&HeaderMap::new(), pieces(50), &ApiConfig::new(), memory, watch).await;
        assert_eq!(ended.unwrap_err(), BodyError::Broken);
        assert_eq!((seen, ledger.held(MemoryUse::Bodies)), (4000, 0));
    }
}
