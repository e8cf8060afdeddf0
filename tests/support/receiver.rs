//! A receiver of webhooks on this machine that remembers everything and refuses some.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;

/// Every webhook that arrived: its id, and what it said. It takes two of three only, so that there are second sendings.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    messages: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    count: Arc<AtomicU32>,
}

impl Receiver {
    pub(crate) async fn start(&self) -> SocketAddr {
        self.start_at(Ipv4Addr::LOCALHOST).await
    }

    /// At an address of this machine.
    pub(crate) async fn start_at(&self, address: Ipv4Addr) -> SocketAddr {
        async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
            let id = headers["webhook-id"].to_str().expect("text").to_owned();
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            receiver
                .messages
                .lock()
                .expect("no panic")
                .entry(id)
                .or_default()
                .push(message);
            if receiver.count.fetch_add(1, Ordering::Relaxed) % 3 == 0 {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            }
        }
        let listener = tokio::net::TcpListener::bind((address, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let routes = Router::new().route("/", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    /// What has arrived under each id.
    pub(crate) fn messages(&self) -> BTreeMap<String, Vec<Value>> {
        self.messages.lock().expect("no panic").clone()
    }

    /// Waits until a second passes in which nothing comes.
    pub(crate) async fn until_quiet(&self) {
        let mut before = u32::MAX;
        loop {
            let now = self.count.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
