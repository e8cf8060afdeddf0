//! `GET /openapi.json`: what every call takes and answers, as OpenAPI 3.1 has it.
//!
//! Bodies come from the field tables of the dialects, so that no range stands in two places; what is answered is said here.
//! `docs/openapi.json` is the same document, for those who have no server at hand.

mod a1111;
#[cfg(test)]
mod markdown;
mod modelslab;
mod novita;
mod openai;
mod operation;
mod own;
mod page;
mod schema;

pub(crate) use schema::object_of;

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};

use self::operation::Operation;
use crate::AppState;
use crate::admin::edge_failure;
use crate::edge_fault::EdgeFault;

/// The tags: the dialects, and our own calls.
const TAGS: [(&str, &str); 5] = [
    (
        novita::TAG,
        "Novita's calls for latent consistency models: an API key as `Authorization: Bearer`, errors with their HTTP status.",
    ),
    (
        modelslab::TAG,
        "ModelsLab's enterprise calls: the key is a field of the body, and errors come with status 200 unless the server is told \
         otherwise.",
    ),
    (
        openai::TAG,
        "OpenAI's calls for images: an API key as `Authorization: Bearer`, bodies as JSON or as forms with files, replies with \
         files, links, or as streams of events.",
    ),
    (
        a1111::TAG,
        "The calls of AUTOMATIC1111's web UI: an API key as the password of HTTP Basic or as `Authorization: Bearer`, images \
         in the replies.",
    ),
    (
        own::TAG,
        "What is the same for all: models, jobs, webhooks, health.",
    ),
];

/// Written when they are first asked for, and not for every caller.
static WHOLE: LazyLock<String> = LazyLock::new(|| written(&document(None)));
static PARTS: LazyLock<[(&str, String); TAGS.len()]> =
    LazyLock::new(|| TAGS.map(|(tag, _)| (tag, written(&document(Some(tag))))));

/// The documents, and the page for people.
pub(crate) fn routes() -> Router<AppState> {
    Router::new()
        .route("/openapi.json", get(async || json_file(&WHOLE)))
        .route("/openapi/{part}", get(part))
        .route("/docs", get(page::page))
}

/// `/openapi/novita.json` and the others.
async fn part(Path(name): Path<String>) -> Response {
    let wanted = name.strip_suffix(".json");
    match PARTS.iter().find(|(tag, _)| Some(*tag) == wanted) {
        Some((_, text)) => json_file(text),
        None => edge_failure(EdgeFault::UnknownPath).into_response(),
    }
}

fn json_file(text: &'static str) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn written(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// Every call, in the order of the page.
fn operations() -> Vec<Operation> {
    [
        novita::operations(),
        modelslab::operations(),
        openai::operations(),
        a1111::operations(),
        own::operations(),
    ]
    .concat()
}

/// Of the calls of one tag, or of all.
fn document(of: Option<&str>) -> Value {
    let has = |tag: &str| of.is_none_or(|wanted| wanted == tag);
    let mut paths = Map::new();
    for operation in operations().iter().filter(|operation| has(operation.tag)) {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_lowercase()] = operation.described();
    }
    let tags = TAGS.iter().filter(|(tag, _)| has(tag));
    let tags: Vec<Value> = tags
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pentimento",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Stable Diffusion by the calls of Novita, ModelsLab, OpenAI and AUTOMATIC1111's web UI",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the server, where it has any."},
            },
            "schemas": schemas(),
        },
    })
}

fn schemas() -> Value {
    let mut all = Map::new();
    let parts = [
        novita::schemas(),
        modelslab::schemas(),
        openai::schemas(),
        a1111::schemas(),
        own::schemas(),
    ];
    for (name, schema) in parts.concat() {
        all.insert(name.to_owned(), schema);
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::endpoint_fields;

    #[test]
    fn every_call_with_fields_is_described_once() {
        let all = operations();
        let described: Vec<(&str, &str)> = all.iter().map(|call| (call.method, call.path)).collect();
        let distinct: BTreeSet<_> = described.iter().collect();
        assert_eq!(distinct.len(), described.len());
        for endpoint in endpoint_fields() {
            assert!(
                described.contains(&(endpoint.method, endpoint.path)),
                "{} {} has fields and is not described",
                endpoint.method,
                endpoint.path
            );
        }
        let ids: BTreeSet<&str> = all.iter().map(|call| call.id).collect();
        assert_eq!(ids.len(), all.len(), "an id names one call");
    }

    /// Every `$ref` leads somewhere.
    #[test]
    fn references_are_not_dangling() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    for (name, member) in members {
                        if name == "$ref" {
                            let place = member.as_str().and_then(|place| place.strip_prefix('#'));
                            let place = place.expect("a place in the document");
                            assert!(document.pointer(place).is_some(), "{place}");
                        }
                        check(document, member);
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| check(document, item)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        for part in std::iter::once(None).chain(TAGS.map(|(tag, _)| Some(tag))) {
            let document = document(part);
            check(&document, &document);
        }
    }

    /// `INSTA_UPDATE=always` writes them, as it does snapshots.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own switch, not a setting of the program"
    )]
    fn the_committed_documents_are_these() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (name, text) in [("openapi.json", WHOLE.clone()), ("fields.md", markdown::fields())] {
            let path = docs.join(name);
            if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
                fs_err::write(&path, &text).expect("the file can be written");
            }
            let committed = fs_err::read_to_string(path).unwrap_or_default();
            assert!(
                committed == text,
                "docs/{name} is of another version; this test with INSTA_UPDATE=always writes it anew"
            );
        }
    }
}
