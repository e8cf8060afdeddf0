//! Reads a request's body within bytes and seconds. Nothing is allocated by what a header claims.

use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::ApiConfig;

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// More bytes than the limit.
    #[error("the body is larger than {} MiB; send a smaller picture", limit / (1024 * 1024))]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// It came too slowly.
    #[error("the body took too long to arrive")]
    TooSlow,
    /// The connection broke or the framing was wrong.
    #[error("the body could not be read to its end")]
    Broken,
    /// A compressed body; refused, so that 10 kB cannot become 10 GB.
    #[error("the body has Content-Encoding {encoding:?}, which is not supported; send it uncompressed")]
    Compressed {
        /// What the header says.
        encoding: String,
    },
}

/// The whole body, or why not.
pub(crate) async fn read(headers: &HeaderMap, body: Body, config: &ApiConfig) -> Result<Bytes, BodyError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes())
            .chars()
            .take(40)
            .collect();
        return Err(BodyError::Compressed { encoding });
    }
    let whole = collect(body, config.max_body_bytes, config.body_idle_timeout);
    tokio::time::timeout(config.body_timeout, whole)
        .await
        .map_err(|_| BodyError::TooSlow)?
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

async fn collect(body: Body, limit: usize, idle: Duration) -> Result<Bytes, BodyError> {
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(chunk) = tokio::time::timeout(idle, chunks.next())
        .await
        .map_err(|_| BodyError::TooSlow)?
    {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        if whole.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ApiConfig {
        ApiConfig {
            max_body_bytes: 10,
            body_idle_timeout: Duration::from_millis(40),
            ..ApiConfig::new()
        }
    }

    #[tokio::test]
    async fn bytes_and_seconds_are_limited() {
        let headers = HeaderMap::new();
        assert_eq!(
            read(&headers, Body::from("0123456789"), &config()).await.unwrap(),
            "0123456789"
        );
        assert_eq!(
            read(&headers, Body::from("0123456789a"), &config()).await,
            Err(BodyError::TooLarge { limit: 10 })
        );
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(
            read(&headers, Body::from_stream(never), &config()).await,
            Err(BodyError::TooSlow)
        );
    }

    #[tokio::test]
    async fn a_compressed_body_is_refused_unread() {
        let headers = [(CONTENT_ENCODING, "gzip".parse().unwrap())]
            .into_iter()
            .collect();
        let refused = read(&headers, Body::from("x"), &config()).await;
        assert!(matches!(refused, Err(BodyError::Compressed { .. })));
    }
}
