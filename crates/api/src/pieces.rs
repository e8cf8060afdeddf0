//! A JSON reply in pieces: large texts in it are sent as they are counted in the account of memory, and are not copied.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;

/// The reply that the pieces are together.
pub(crate) fn json_reply(pieces: Vec<Bytes>) -> Response {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let pieces = pieces.into_iter().map(Ok::<_, std::convert::Infallible>);
    let body = Body::from_stream(futures::stream::iter(pieces));
    let headers: HeaderMap = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_LENGTH, HeaderValue::from(length)),
    ]
    .into_iter()
    .collect();
    (headers, body).into_response()
}

/// An object that begins with a text in base64 under this name; `others` are its other members, at least one.
pub(crate) fn with_text(name: &str, text: Bytes, others: &Value) -> [Bytes; 3] {
    let begin = format!("{{\"{name}\":\"");
    [
        begin.into(),
        text,
        Bytes::from([b"\",", &members(others)[..]].concat()),
    ]
}

/// The text of an object without the brace that it begins with.
pub(crate) fn members(object: &Value) -> Bytes {
    Bytes::from(object.to_string()).slice(1..)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_between_its_members_is_json() {
        let pieces = with_text("b64_json", Bytes::from_static(b"aGk="), &json!({"seed": 5}));
        let read: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(read, json!({"b64_json": "aGk=", "seed": 5}));
    }
}
