//! A web server of the test that has the pictures of `tests/scenarios/pictures` and `tests/images`, and behaves badly
//! where it is asked to.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;

use super::pictures;

/// Its address; it lives as long as the runtime of the test.
pub(crate) async fn start() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let routes = Router::new()
        .route(
            "/pictures/{name}",
            get(|Path(name): Path<String>| async move { file(&name) }),
        )
        .route(
            "/images/{name}",
            get(|Path(name): Path<String>| async move { file(&format!("images/{name}")) }),
        )
        .route(
            "/moved/{name}",
            get(|Path(name): Path<String>| async move { Redirect::to(&format!("/pictures/{name}")) }),
        )
        .route(
            "/to-metadata",
            get(|| async { Redirect::to("http://169.254.169.254/latest/meta-data/") }),
        )
        .route(
            "/to-file",
            get(|| async { (StatusCode::FOUND, [("location", "file:///etc/passwd")]) }),
        )
        .route("/loop", get(|| async { Redirect::to("/loop") }))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/page", get(|| async { axum::response::Html("<p>no picture") }))
        .route("/endless", get(|| async { endless() }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

fn file(name: &str) -> Response {
    if name.contains("..") {
        return StatusCode::NOT_FOUND.into_response();
    }
    pictures::bytes(name).into_response()
}

/// A body without an end.
fn endless() -> Response {
    let chunks = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((Ok::<_, std::io::Error>(vec![0_u8; 1 << 20]), ()))
    });
    Body::from_stream(chunks).into_response()
}
