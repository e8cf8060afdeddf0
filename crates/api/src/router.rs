//! Puts routes and middleware together, and says which dialect answers for a path that nobody has.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::http::StatusCode;
use pentimento_types::ErrorKind;

use crate::admin::own_failure;
use crate::dialects::modelslab;
use crate::dialects::novita::{self, NovitaError};
use crate::failure::Failure;
use crate::{AppState, admin, links, middleware};

/// The whole application.
pub fn build_router(state: AppState) -> Router {
    let config = Arc::clone(&state.config);
    let routes = Router::new()
        .merge(novita::routes())
        .merge(modelslab::routes())
        .merge(links::routes())
        .merge(admin::routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read by `body::read`, which has limits of its own.
        .layer(DefaultBodyLimit::disable())
        .with_state(state);
    middleware::apply(routes, &config)
}

/// Which shape the errors of a path have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/v1`, `/files` and the paths at the root.
    Own,
    /// `/api/v1` and `/api/v6`, and `/v1/enterprise` for base addresses without it.
    ModelsLab,
    /// `/v2`, `/v3`, and whatever else a vendor's client may come up with.
    Novita,
}

impl Shape {
    /// The shape for a path; unknown paths are the dialect's, because mistaken base addresses come from its clients.
    pub(crate) fn of(path: &str) -> Self {
        let own = ["/v1", "/files", "/healthz", "/readyz", "/metrics"];
        let under = |root: &&str| {
            path.strip_prefix(*root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let modelslab = ["/api/v1", "/api/v6", "/v1/enterprise", "/v6"];
        if modelslab.iter().any(under) {
            Self::ModelsLab
        } else if path == "/" || own.iter().any(under) {
            Self::Own
        } else {
            Self::Novita
        }
    }

    /// A dialect's error, or ours with the same meaning.
    pub(crate) fn failure(self, error: NovitaError) -> Failure {
        let failure = Failure::from(error);
        match self {
            Self::Novita => failure,
            // These keep their real statuses whatever the setting says.
            Self::ModelsLab => modelslab::plain_failure(failure),
            Self::Own => Failure {
                cause: failure.cause,
                ..own_failure((failure.kind, failure.status), failure.message)
            },
        }
    }
}

async fn unknown_path(request: Request) -> Failure {
    match Shape::of(request.uri().path()) {
        shape @ (Shape::Novita | Shape::ModelsLab) => shape.failure(NovitaError::UnknownPath),
        Shape::Own => own_failure(
            (ErrorKind::NotFound, StatusCode::NOT_FOUND),
            "there is nothing at this path",
        ),
    }
}

async fn wrong_method(request: Request) -> Failure {
    Shape::of(request.uri().path()).failure(NovitaError::WrongMethod)
}

#[cfg(test)]
mod tests;
