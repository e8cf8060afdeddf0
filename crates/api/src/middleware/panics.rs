//! A panic in a handler becomes a 500 in the dialect's shape; its text goes to the log only.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;

use crate::edge_fault::EdgeFault;
use crate::shape::Shape;

/// Runs the rest of the call and catches what it throws.
pub(super) async fn catch(request: Request, next: Next) -> Response {
    let shape = Shape::of(request.uri().path());
    // Nothing of the call is used after a panic: the request and the handler's state are gone with it.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => shape
            .failure(EdgeFault::Panicked {
                text: text_of(panic.as_ref()),
            })
            .into_response(),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a text"))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;
    use crate::middleware::failures;

    #[tokio::test]
    async fn a_panic_is_a_500_that_tells_nothing() {
        async fn boom() -> &'static str {
            panic!("the secret is {}", 42)
        }
        let router: Router = Router::new()
            .route("/v3/boom", get(boom))
            .route("/v1/boom", get(boom))
            .layer(from_fn(catch))
            .layer(from_fn(failures::render));
        for (path, part) in [("/v3/boom", "TASK_FAILED"), ("/v1/boom", "\"kind\":\"internal\"")] {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 500);
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(part) && !body.contains("secret"), "{body}");
        }
    }
}
