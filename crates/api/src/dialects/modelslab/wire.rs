//! The fields of a body, whatever its encoding: JSON with any content type, form fields, or parts of a multipart body.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use bytes::Bytes;
use pentimento_service::KeyRing;

use super::auth;
use super::error::ModelsLabError;
use super::fields::{ALL, BASE64_IMAGE, INIT_IMAGE, IP_ADAPTER_IMAGE, KEY, MASK_IMAGE};
use super::reader::scheme;
use crate::body::{BodyMemory, ReadBody, off_thread};
use crate::dialects::field::names;
use crate::dialects::json::{self, Fields, Json, NameCount, parse_object};
use crate::dialects::multipart;
use crate::idempotency::RequestDigest;

/// Reads a body, and lets it go; the memory is that of the fields. An empty one has no fields, which is all that `fetch`
/// needs. What a digest is asked of goes into it.
///
/// All of it runs away from the async threads: a look at 64 MiB takes milliseconds, and their fields take more.
pub(super) async fn fields(
    parts: Parts,
    body: ReadBody,
    (keys, mut digest): (Arc<KeyRing>, Option<RequestDigest>),
) -> Result<ReadFields, ModelsLabError> {
    // The memory goes along, because this runs on when the caller hangs up.
    off_thread(move || {
        let body = identified(body, &keys, &parts)?;
        let copies = match first_byte(body.bytes()) {
            None => 0,
            Some(b'{') => json::copies(body.bytes()),
            Some(_) => json::MAX_COPIES,
        };
        let (bytes, memory) = body.with_room(copies)?;
        let fields = fields_of(parts, bytes, digest.as_mut())?;
        Ok(ReadFields {
            fields,
            memory,
            digest,
        })
    })
    .await
}

/// A body that has been read.
pub(super) struct ReadFields {
    pub(super) fields: Fields,
    pub(super) memory: BodyMemory,
    /// What was asked for.
    pub(super) digest: Option<RequestDigest>,
}

/// Looks for the key in a body whose sender is not identified yet, before anything is copied out of it. Whether there is
/// one can be told of JSON only; a body that is not even that is left to the parser, which says why.
fn identified(mut body: ReadBody, keys: &KeyRing, parts: &Parts) -> Result<ReadBody, ModelsLabError> {
    if body.is_identified() || first_byte(body.bytes()) != Some(b'{') {
        return Ok(body);
    }
    // Nothing but the key is copied, but texts with escapes are put together to be passed over.
    let scratch = json::copies(body.bytes()) - 1;
    let found = body.look(scratch, |bytes| parse_object(bytes, &[KEY.name]))?;
    if let Ok(mut fields) = found {
        auth::caller(keys, fields.take(KEY.name), &parts.headers, parts.uri.query())?;
        body.identify_sender();
    }
    Ok(body)
}

pub(super) fn fields_of(
    parts: Parts,
    bytes: Bytes,
    digest: Option<&mut RequestDigest>,
) -> Result<Fields, ModelsLabError> {
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let object = |bytes: &[u8]| Ok(parse_object(bytes, &names(ALL))?);
    let first = first_byte(&bytes);
    if first.is_some() && kind.starts_with("multipart/form-data") {
        return multipart(&parts.headers, &bytes, digest);
    }
    if let Some(digest) = digest {
        digest.add(&bytes);
    }
    match first {
        None => Ok(Fields::default()),
        Some(b'{') => object(&bytes),
        Some(_) if kind.starts_with("application/x-www-form-urlencoded") => form(&bytes),
        // Nothing says what it is, and it looks like one.
        Some(byte) if kind.is_empty() && byte.is_ascii_alphabetic() && bytes.contains(&b'=') => form(&bytes),
        Some(_) => object(&bytes),
    }
}

/// The first byte that is not white space.
fn first_byte(bytes: &[u8]) -> Option<u8> {
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn form(bytes: &[u8]) -> Result<Fields, ModelsLabError> {
    let mut members = Members::default();
    for (name, value) in url::form_urlencoded::parse(bytes) {
        let mut value = value.into_owned();
        // A plus sign of base64 that was not escaped has become a space. In an address a space is one.
        let is_inline = || image_names().any(|image| image == name) && !is_address(&value);
        if value.contains(' ') && is_inline() {
            value = value.replace(' ', "+");
        }
        members.put(name.into_owned(), Json::Text(value))?;
    }
    Ok(members.into_fields())
}

/// The digest is of the parts, because their boundary is another one each time that a client sends them.
fn multipart(
    headers: &HeaderMap,
    bytes: &Bytes,
    mut digest: Option<&mut RequestDigest>,
) -> Result<Fields, ModelsLabError> {
    let parts =
        multipart::read(headers, bytes).map_err(|problem| ModelsLabError::Form(problem.to_string()))?;
    let mut members = Members::default();
    for (name, value) in parts {
        if let Some(digest) = &mut digest {
            digest.add_part(&name, &value);
        }
        members.put(name, value)?;
    }
    Ok(members.into_fields())
}

fn is_address(text: &str) -> bool {
    matches!(scheme(text.trim_start()).as_deref(), Some("http" | "https"))
}

fn image_names() -> impl Iterator<Item = &'static str> {
    [
        INIT_IMAGE.name,
        MASK_IMAGE.name,
        IP_ADAPTER_IMAGE.name,
        BASE64_IMAGE.name,
    ]
    .into_iter()
}

/// The members of a form. One that comes twice has its last value, as in PHP.
#[derive(Default)]
struct Members {
    count: NameCount,
    values: Vec<(String, Json)>,
    /// Where each name stands.
    places: HashMap<String, usize>,
}

impl Members {
    fn put(&mut self, name: String, value: Json) -> Result<(), ModelsLabError> {
        self.count
            .add(&name)
            .map_err(|problem| ModelsLabError::Form(format!("the form has {problem}")))?;
        match self.places.entry(name) {
            Entry::Occupied(place) => self.values[*place.get()].1 = value,
            Entry::Vacant(place) => {
                self.values.push((place.key().clone(), value));
                place.insert(self.values.len() - 1);
            }
        }
        Ok(())
    }

    fn into_fields(self) -> Fields {
        Fields::from_object(self.values, &names(ALL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<Fields, ModelsLabError> {
        let mut request = axum::http::Request::post("/");
        if !kind.is_empty() {
            request = request.header(CONTENT_TYPE, kind);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        fields_of(parts, Bytes::from(body.to_owned()), None)
    }

    #[test]
    fn every_encoding_gives_the_same_fields() {
        let form = "prompt=a+red+house&strength=0.5&samples=1&samples=2&init_image=ab+c";
        let multipart = "--B\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na red house\r\n\
                         --B\r\ncontent-disposition: form-data; name=\"strength\"\r\n\r\n0.5\r\n\
                         --B\r\ncontent-disposition: form-data; name=\"samples\"\r\n\r\n2\r\n--B--\r\n";
        let json = r#" {"prompt":"a red house","strength":"0.5","samples":"2"}"#;
        for (kind, body) in [
            ("application/json", json),
            ("", json),
            ("application/x-www-form-urlencoded", json),
            ("text/plain", json),
            ("application/x-www-form-urlencoded; charset=utf-8", form),
            ("", form),
            ("multipart/form-data; boundary=B", multipart),
        ] {
            let mut fields = read(kind, body).unwrap();
            assert_eq!(
                fields.take("prompt"),
                Json::Text("a red house".to_owned()),
                "{kind}"
            );
            assert_eq!(fields.take("strength"), Json::Text("0.5".to_owned()), "{kind}");
            assert_eq!(fields.take("samples"), Json::Text("2".to_owned()), "{kind}");
            if body == form {
                assert_eq!(fields.take("init_image"), Json::Text("ab+c".to_owned()));
            }
        }
    }

    #[test]
    fn a_space_in_an_address_of_a_form_stays_one_and_in_base64_it_was_a_plus() {
        for (form, expected) in [
            ("init_image=https%3A%2F%2Fx%2Fa+b%20c.png", "https://x/a b c.png"),
            ("init_image=+HTTP://x/a%2Bb+c.png", " HTTP://x/a+b c.png"),
            ("init_image=ab+c%2B", "ab+c+"),
        ] {
            let mut fields = read("application/x-www-form-urlencoded", form).unwrap();
            assert_eq!(
                fields.take("init_image"),
                Json::Text(expected.to_owned()),
                "{form}"
            );
        }
    }

    #[test]
    fn a_file_part_keeps_its_bytes() {
        let body = "--B\r\ncontent-disposition: form-data; name=\"init_image\"; filename=\"a.png\"\r\n\r\na\0\r\n-c\r\n--B--\r\n";
        let mut fields = read("multipart/form-data; boundary=B", body).unwrap();
        assert_eq!(
            fields.take("init_image"),
            Json::File(Bytes::from_static(b"a\0\r\n-c"))
        );
    }

    #[test]
    fn a_request_that_is_sent_again_has_the_same_digest() {
        let digest = |kind: &str, body: &str| {
            let request = axum::http::Request::post("/").header(CONTENT_TYPE, kind);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let mut digest = RequestDigest::new("img2img");
            fields_of(parts, Bytes::from(body.to_owned()), Some(&mut digest)).unwrap();
            digest.named("once".to_owned()).digest
        };
        let json = |prompt: &str| digest("application/json", &format!("{{\"prompt\": \"{prompt}\"}}"));
        assert_eq!(json("a"), json("a"));
        assert_ne!(json("a"), json("b"));
        let parts = |boundary: &str, prompt: &str| {
            let kind = format!("multipart/form-data; boundary={boundary}");
            let name = "content-disposition: form-data; name=\"prompt\"";
            digest(
                &kind,
                &format!("--{boundary}\r\n{name}\r\n\r\n{prompt}\r\n--{boundary}--\r\n"),
            )
        };
        assert_eq!(parts("A", "a"), parts("B", "a"));
        assert_ne!(parts("A", "a"), parts("A", "b"));
    }

    #[test]
    fn an_empty_body_has_no_fields_and_nonsense_is_refused() {
        assert_eq!(read("application/json", " \n").unwrap(), Fields::default());
        for (kind, body) in [
            ("application/json", "prompt=x"),
            ("", "[1]"),
            ("", "hello"),
            ("application/json", "{"),
            ("multipart/form-data", "--B"),
        ] {
            assert!(read(kind, body).is_err(), "{kind} {body}");
        }
    }

    #[test]
    fn names_are_counted_in_number_and_in_bytes_each_time_that_they_come() {
        let refused = |kind: &str, body: &str| read(kind, body).unwrap_err().to_string();
        let form = "application/x-www-form-urlencoded";
        let many: String = (0..2000).map(|i| format!("k{i}=1&")).collect();
        assert!(refused(form, &many).contains("more than 1024 fields"));
        assert!(refused("", &many).contains("more than 1024 fields"));
        assert!(refused(form, &"a=1&".repeat(2000)).contains("more than 1024 fields"));
        let long = format!("{}=1", "x".repeat(70_000));
        assert!(refused(form, &long).contains("more than 65536 bytes"));
        let part = "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
        let parts = format!("{}--B--\r\n", part.repeat(2000));
        assert!(refused("multipart/form-data; boundary=B", &parts).contains("more than 1024 fields"));
        let some = format!("{}prompt=x", "a=1&".repeat(1000));
        let mut fields = read(form, &some).unwrap();
        assert_eq!(fields.take("prompt"), Json::Text("x".to_owned()));
    }
}
