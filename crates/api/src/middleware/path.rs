//! Doubled and trailing slashes mean the same path (base addresses are often mistyped). Never by a redirect: on one,
//! `requests`, `fetch` and curl turn a POST into a GET and drop its body.
//!
//! Nothing else is touched: `..` and encoded slashes stay as they are and match no route.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::response::Response;
use tower::Service;

/// A router that sees tidied paths only.
#[derive(Clone, Debug)]
pub(super) struct Tidied {
    routes: Router,
}

impl Tidied {
    pub(super) fn new(routes: Router) -> Self {
        Self { routes }
    }
}

impl Service<Request> for Tidied {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Router as Service<Request>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Some(uri) = tidied(request.uri()) {
            *request.uri_mut() = uri;
        }
        self.routes.call(request)
    }
}

/// The tidied address; None when there is nothing to do.
fn tidied(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path.len() == 1 || !path.ends_with('/')) {
        return None;
    }
    let mut tidy = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        tidy.push('/');
        tidy.push_str(part);
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(tidy).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_tidied_and_nothing_else() {
        for (before, after) in [
            ("/v3/model/", "/v3/model"),
            ("//v3///model//?a=//b/", "/v3/model?a=//b/"),
            ("//", "/"),
            ("///?x", "/?x"),
        ] {
            // `//host` at the front would be an authority for a parser of whole addresses; a request line has none.
            let uri = Uri::from(PathAndQuery::try_from(before).unwrap());
            assert_eq!(tidied(&uri).unwrap().to_string(), after);
        }
        for untouched in [
            "/",
            "/v3/model",
            "/v3/../model",
            "/v3%2Fmodel",
            "/v3/model?x=a//b",
        ] {
            assert_eq!(tidied(&untouched.parse().unwrap()), None);
        }
    }
}
