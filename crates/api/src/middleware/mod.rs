//! Everything that happens to every call, in one order, with the reason for each place.

mod declared_length;
mod failures;
mod measure;
mod panics;
mod path;
mod request_id;
mod unread;
mod visitors;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONTENT_RANGE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{from_fn, from_fn_with_state};
use pentimento_service::Traces;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use tower_http::trace::TraceLayer;

use crate::config::{ApiConfig, CorsOrigins};
use crate::jobs::JOB_ID;
use crate::links::without_signature;
use crate::metrics::Metrics;
use crate::origin::traceparent;

pub(crate) use request_id::RequestId;
pub(crate) use visitors::{Visitors, Watch};

/// What the layers need of the application.
pub(crate) struct Around {
    pub(crate) watch: Watch,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Traces,
}

/// Wraps the routes. The list runs from the outside to the inside: a request meets the first layer first.
/// `largest_body` in bytes.
pub(crate) fn apply(routes: Router, config: &Arc<ApiConfig>, around: Around, largest_body: usize) -> Router {
    let Around {
        watch,
        metrics,
        traces,
    } = around;
    let layers = ServiceBuilder::new()
        // Outermost, because what it measures is what the caller waits for.
        .layer(from_fn_with_state(metrics, measure::call))
        // Before all others, because every line that they log, and every error body, carries the id.
        .layer(from_fn(request_id::attach))
        // Around everything that can take time or fail, so that the span covers it.
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(move |request: &Request| span(request, traces))
                .on_failure(()),
        )
        // Outside everything that refuses a call, because a caller who is still sending must get to read the refusal.
        .layer(from_fn_with_state(2 * largest_body, unread::discard))
        // Outside the error bodies, because they are compressed as well. Only where the caller offered it.
        .layer(CompressionLayer::new())
        // Outside the errors, because a web page may read an error only with these headers; and outside the routes,
        // because OPTIONS is answered for every path and needs no key.
        .layer(cors(&config.cors_origins, &watch))
        // Turns a failure into its body, and logs it, once.
        .layer(from_fn(failures::render))
        // Inside the error bodies, because a panic becomes one.
        .layer(from_fn(panics::catch))
        // Before anything of the call is looked at: a web page's call is made with all rights of the one who looks at it.
        .layer(from_fn_with_state(watch, visitors::check))
        // Innermost: refuses by the declared length before a byte of the body is read.
        .layer(from_fn_with_state(largest_body, declared_length::check));
    // Routing itself comes after the path is tidied, so the tidying must stand outside a router of its own.
    Router::new().fallback_service(path::Tidied::new(routes.layer(layers)))
}

/// The same for the listener of health checks, which reads no bodies and which no page of elsewhere has business with.
pub(crate) fn apply_for_admin(routes: Router, watch: Watch) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn(request_id::attach))
        .layer(from_fn(failures::render))
        .layer(from_fn(panics::catch))
        .layer(from_fn_with_state(watch, visitors::check));
    Router::new().fallback_service(path::Tidied::new(routes.layer(layers)))
}

/// One span for each call. The query is left out, since a key may stand in it, and so is the signature of a link.
fn span(request: &Request, traces: Traces) -> tracing::Span {
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(RequestId::as_str)
        .unwrap_or_default();
    let path = without_signature(request.uri().path());
    let span = tracing::info_span!("http", request_id = id, method = %request.method(), path = &*path);
    traces.adopt(&span, traceparent(request.headers()));
    span
}

/// The wildcard does not cover `Authorization`, so what the page asks for is echoed.
fn cors(origins: &CorsOrigins, watch: &Watch) -> CorsLayer {
    let origin = match origins {
        // A key may be made while the server runs; it never opens again.
        CorsOrigins::ByKeys if watch.keys.is_open() => {
            let Watch { visitors, keys, .. } = watch.clone();
            AllowOrigin::predicate(move |origin, parts| {
                !keys.is_open() || visitors.allow_origin(origin, &parts.headers)
            })
        }
        CorsOrigins::ByKeys | CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::Only(list) => AllowOrigin::list(list.iter().cloned()),
        CorsOrigins::None => AllowOrigin::list(std::iter::empty::<HeaderValue>()),
    };
    let readable = [
        request_id::HEADER,
        HeaderName::from_static("x-pentimento-ignored-fields"),
        JOB_ID,
        RETRY_AFTER,
        CONTENT_RANGE,
    ];
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(readable)
        .max_age(std::time::Duration::from_secs(86_400))
}
