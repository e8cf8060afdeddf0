//! The parts of a multipart body that has arrived whole, in their order.

use axum::body::Body;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::HeaderMap;
use bytes::Bytes;

use super::json::{Json, NameCount, TooManyNames};

/// Why a body has no parts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    /// The content type names no boundary.
    #[error("the multipart body has no boundary")]
    NoBoundary,
    /// It does not follow RFC 7578.
    #[error("the multipart body is not well formed")]
    Broken,
    /// A part that is no file.
    #[error("the multipart body has a text that is not UTF-8")]
    NotText,
    /// More parts, or longer names, than anybody means.
    #[error("the form has {0}")]
    TooMany(#[from] TooManyNames),
}

/// Reads all parts: name, and a file or a text. Both are copied out of the body; the room for that is the caller's to have
/// reserved, as `json::MAX_COPIES` says.
///
/// `headers` are those of the call.
pub(crate) fn read(headers: &HeaderMap, bytes: &Bytes) -> Result<Vec<(String, Json)>, MultipartError> {
    /// The reader keeps a copy of the piece that it is looking at.
    const PIECE: usize = 64 * 1024;
    let whole = bytes.clone();
    let pieces = (0..bytes.len()).step_by(PIECE).map(move |start| {
        let end = whole.len().min(start + PIECE);
        Ok::<_, std::convert::Infallible>(whole.slice(start..end))
    });
    let mut request = Request::new(Body::from_stream(futures::stream::iter(pieces)));
    *request.headers_mut() = headers.clone();
    // Everything is there, so nothing waits in here; the reader is made for bodies that arrive.
    futures::executor::block_on(async {
        let body = Multipart::from_request(request, &()).await;
        let mut body = body.map_err(|_| MultipartError::NoBoundary)?;
        let mut count = NameCount::default();
        let mut parts = Vec::new();
        while let Some(part) = body.next_field().await.map_err(|_| MultipartError::Broken)? {
            let name = part.name().unwrap_or_default().to_owned();
            let is_file = part.file_name().is_some();
            let value = part.bytes().await.map_err(|_| MultipartError::Broken)?;
            count.add(&name)?;
            let value = if is_file {
                Json::File(value)
            } else {
                let text = std::str::from_utf8(&value).map_err(|_| MultipartError::NotText)?;
                Json::Text(text.to_owned())
            };
            parts.push((name, value));
        }
        Ok(parts)
    })
}
