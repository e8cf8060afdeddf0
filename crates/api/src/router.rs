//! Puts routes and middleware together.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};

use crate::dialects::{modelslab, novita};
use crate::edge_fault::EdgeFault;
use crate::failure::Failure;
use crate::middleware::Visitors;
use crate::shape::Shape;
use crate::{AppState, admin, jobs, links, middleware};

/// The whole application.
pub fn build_router(state: AppState) -> Router {
    let config = Arc::clone(&state.config);
    let largest_body = state.bodies.largest_body();
    let visitors = visitors(&state);
    let routes = Router::new()
        .merge(novita::routes())
        .merge(modelslab::routes())
        .merge(links::routes())
        .merge(jobs::routes())
        .merge(admin::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read by `body::read`, which has limits of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    middleware::apply(routes, &config, visitors, largest_body)
}

/// Our own calls alone, for a listener that callers cannot reach and so cannot fill.
pub fn build_admin_router(state: AppState) -> Router {
    let visitors = visitors(&state);
    let routes = admin::routes()
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(state);
    middleware::apply_for_admin(routes, visitors)
}

/// Whom a server without keys answers.
fn visitors(state: &AppState) -> Option<Visitors> {
    state.keys.is_open().then(|| Visitors::of(&state.config))
}

async fn unknown_path(request: Request) -> Failure {
    Shape::of(request.uri().path()).failure(EdgeFault::UnknownPath)
}

async fn wrong_method(request: Request) -> Failure {
    Shape::of(request.uri().path()).failure(EdgeFault::WrongMethod)
}

#[cfg(test)]
mod tests;
