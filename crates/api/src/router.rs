//! Puts routes and middleware together.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::routing::get;

use crate::dialects::{a1111, modelslab, novita, openai};
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::middleware::{Around, Visitors, Watch};
use crate::shape::Shape;
use crate::{
    AppState, admin, cluster, jobs, links, mcp, metrics_page, middleware, models, openapi, playground,
    provenance, webhook_calls,
};

/// The whole application.
pub fn build_router(state: AppState) -> Router {
    let config = Arc::clone(&state.config);
    let largest_body = state.bodies.largest_body();
    let around = Around {
        watch: Watch::new(Visitors::of(&config), Arc::clone(&state.keys)),
        metrics: Arc::clone(&state.metrics),
        traces: state.service.traces(),
    };
    let routes = Router::new()
        .merge(novita::routes())
        .merge(modelslab::routes())
        .merge(openai::routes())
        .merge(mcp::routes())
        .merge(a1111::routes())
        .merge(links::routes())
        .merge(jobs::routes())
        .merge(webhook_calls::routes())
        .merge(provenance::routes())
        .merge(admin::routes())
        .merge(models::routes())
        .merge(cluster::routes())
        .merge(metrics_page::routes())
        .merge(playground::routes())
        .merge(openapi::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read by `body::read`, which has limits of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    middleware::apply(routes, &config, around, largest_body)
}

/// Our own calls alone, for a listener that callers cannot reach and so cannot fill.
pub fn build_admin_router(state: AppState) -> Router {
    let watch = Watch::new(Visitors::of_admin(&state.config), Arc::clone(&state.keys));
    let routes = admin::routes()
        .merge(models::routes())
        .merge(cluster::routes())
        .route("/", get(admin::index))
        .merge(metrics_page::routes_without_key())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state);
    middleware::apply_for_admin(routes, watch.and_always(metrics_page::PATH))
}

async fn unknown_path(request: Request) -> Failure {
    Shape::of(request.uri().path()).failure(EdgeFault::UnknownPath)
}

async fn wrong_method(request: Request) -> Failure {
    Shape::of(request.uri().path()).failure(EdgeFault::WrongMethod)
}

#[cfg(test)]
mod tests;
