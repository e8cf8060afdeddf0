//! The fields of a body: a JSON object, or a form whose files are images.
//!
//! Clients write lists in forms with brackets: `image[]` several times, `loras[][model]` and `loras[][strength]` for the members
//! of objects (the order in which a member comes again tells which object it belongs to).

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;

use super::error::OpenAiError;
use super::fields::{IMAGE, LORAS};
use crate::dialects::field::{Table, names};
use crate::dialects::json::{self, Fields, Json, parse_object};
use crate::dialects::lenient::FieldError;
use crate::dialects::multipart;
use crate::idempotency::RequestDigest;

/// How many times its own size the fields of a body may take.
pub(super) fn copies(headers: &HeaderMap, bytes: &Bytes) -> usize {
    if is_form(headers) {
        json::MAX_COPIES
    } else {
        json::copies(bytes)
    }
}

/// The fields that the tables know, and the names of the others. What a digest is asked of goes into it: the parts of a form,
/// whose boundary is another one each time that a client sends it, or the bytes.
pub(super) fn fields(
    headers: &HeaderMap,
    bytes: &Bytes,
    (tables, digest): (&[Table], Option<&mut RequestDigest>),
) -> Result<Fields, OpenAiError> {
    let names = names(tables);
    if !is_form(headers) {
        if let Some(digest) = digest {
            digest.add(bytes);
        }
        return Ok(parse_object(bytes, &names)?);
    }
    let parts = multipart::read(headers, bytes)?;
    if let Some(digest) = digest {
        for (name, value) in &parts {
            digest.add_part(name, value);
        }
    }
    Ok(Fields::from_object(members(parts)?, &names))
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let form = "multipart/form-data";
    kind.and_then(|kind| kind.get(..form.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(form))
}

/// The members of the object that a form means.
fn members(parts: Vec<(String, Json)>) -> Result<Vec<(String, Json)>, FieldError> {
    let mut members: Vec<(String, Json)> = Vec::new();
    let mut images = Vec::new();
    let mut loras: Vec<Vec<(String, Json)>> = Vec::new();
    for (name, value) in parts {
        if IMAGE.names().any(|image| image == name) {
            images.push(value);
        } else if let Some(member) = member_of(LORAS.name, &name) {
            let open = loras
                .iter()
                .position(|lora| lora.iter().all(|(have, _)| have != member));
            let open = open.unwrap_or_else(|| {
                loras.push(Vec::new());
                loras.len() - 1
            });
            loras[open].push((member.to_owned(), value));
        } else if members.iter().any(|(have, _)| *have == name) {
            return Err(FieldError::value(&name, "is given twice; send it once"));
        } else {
            members.push((name, value));
        }
    }
    if !images.is_empty() {
        members.push((IMAGE.name.to_owned(), Json::List(images)));
    }
    if !loras.is_empty() {
        let loras = loras.into_iter().map(Json::Object).collect();
        members.push((LORAS.name.to_owned(), Json::List(loras)));
    }
    Ok(members)
}

/// `model` of `loras[][model]`.
fn member_of<'n>(list: &str, name: &'n str) -> Option<&'n str> {
    let inside = name.strip_prefix(list)?.strip_prefix("[][")?;
    inside.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::openai::fields::EDIT_TABLES;

    fn form(parts: &[(&str, &str, bool)]) -> Result<Fields, OpenAiError> {
        let part = |(name, value, is_file): &(&str, &str, bool)| {
            let file = if *is_file { "; filename=\"a.png\"" } else { "" };
            format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
        };
        let text: String = parts.iter().map(part).collect();
        let kind = "Multipart/Form-Data; boundary=B".parse().unwrap();
        let headers = [(CONTENT_TYPE, kind)].into_iter().collect();
        let bytes = Bytes::from(format!("{text}--B--\r\n"));
        fields(&headers, &bytes, (EDIT_TABLES, None))
    }

    #[test]
    fn images_come_under_both_names_and_lists_with_brackets() {
        let mut fields = form(&[
            ("image[]", "one", true),
            ("prompt", "a house", false),
            ("loras[][model]", "a", false),
            ("loras[][model]", "b", false),
            ("loras[][strength]", "0.5", false),
            ("image", "two", true),
            ("nonsense", "x", false),
        ])
        .unwrap();
        let file = |text: &'static str| Json::File(Bytes::from_static(text.as_bytes()));
        let text = |text: &str| Json::Text(text.to_owned());
        assert_eq!(fields.take("image"), Json::List(vec![file("one"), file("two")]));
        assert_eq!(fields.take("prompt"), text("a house"));
        let first = vec![
            ("model".to_owned(), text("a")),
            ("strength".to_owned(), text("0.5")),
        ];
        let second = vec![("model".to_owned(), text("b"))];
        assert_eq!(
            fields.take("loras"),
            Json::List(vec![Json::Object(first), Json::Object(second)])
        );
        assert_eq!(fields.into_ignored(), ["nonsense"]);
    }

    #[test]
    fn a_field_that_comes_twice_is_refused_and_so_is_a_form_that_is_none() {
        let refused = form(&[("n", "1", false), ("n", "2", false)]).unwrap_err();
        assert_eq!(refused.to_string(), "n is given twice; send it once");
        let read = |kind: &'static str, body: &'static str| {
            let headers = [(CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect();
            fields(
                &headers,
                &Bytes::from_static(body.as_bytes()),
                (EDIT_TABLES, None),
            )
        };
        assert!(read("multipart/form-data", "--B--").is_err());
        assert!(read("multipart/form-data; boundary=B", "--B").is_err());
        assert!(read("application/json", "prompt=x").is_err());
        assert!(read("application/json", r#"{"prompt": "x"}"#).is_ok());
    }
}
