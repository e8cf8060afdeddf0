//! Counts every call and measures how long its caller waits for the reply to begin.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use pentimento_types::{Clock as _, ErrorKind, SystemClock};

use crate::dialects::modelslab;
use crate::metrics::Metrics;

/// For paths that are none of ours.
const UNKNOWN_PATH: &str = "unknown";

/// Measures the rest of the call.
pub(super) async fn call(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(|| UNKNOWN_PATH.to_owned(), |path| route(path.as_str()));
    let method = method(request.method());
    let began = SystemClock.now();
    let response = next.run(request).await;
    let time = SystemClock.now().saturating_duration_since(began);
    if let Some(kind) = response.extensions().get::<ErrorKind>() {
        metrics.refused(*kind);
    }
    metrics.answered((route, method), response.status().as_u16(), time);
    response
}

/// The path as it is written in the routes; those of one call under many paths are one.
fn route(path: &str) -> String {
    modelslab::documented_path(path).unwrap_or_else(|| path.to_owned())
}

/// A caller may send any word as a method.
fn method(method: &Method) -> &'static str {
    const KNOWN: &[Method] = &[
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    const WORDS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let known = KNOWN.iter().position(|known| known == method);
    known.map_or("other", |place| WORDS[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_one_call_are_one_route_and_methods_are_of_a_list() {
        for (path, expected) in [
            ("/api/v6/images/img2img", "/api/v1/enterprise/img2img"),
            (
                "/v1/enterprise/images/fetch/{id}",
                "/api/v1/enterprise/fetch/{id}",
            ),
            ("/v3/lcm-img2img", "/v3/lcm-img2img"),
            ("/files/{*key}", "/files/{*key}"),
        ] {
            assert_eq!(route(path), expected);
        }
        let given = |word: &str| method(&word.parse().unwrap());
        assert_eq!(
            [given("DELETE"), given("BREW"), given("get")],
            ["DELETE", "other", "other"]
        );
    }
}
