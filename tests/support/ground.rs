//! What machines of a cluster share: a real broker, and a store of pictures that speaks S3.

use std::time::Duration;

use serde_json::{Value, json};

use super::broker::{Broker, programs};
use super::client::{Reply, good_modelslab_body, http, send};
use super::s3_server::S3Server;
use super::server::TestServer;
use super::worker::TestWorker;

/// What makes a job last, for tests of what happens meanwhile.
pub(crate) fn long() -> Value {
    json!({"width": 256, "height": 256, "num_inference_steps": 150})
}

/// A broker and a store, and how machines get to them.
pub(crate) struct Ground {
    pub(crate) broker: Broker,
    pub(crate) store: S3Server,
}

/// What every machine has whose broker and store are at these addresses.
pub(crate) fn environment_of(broker: &str, store: &str) -> Vec<(String, String)> {
    let pairs = [
        ("PENTIMENTO_CLUSTER", broker),
        ("PENTIMENTO_CLUSTER_TOKEN", "hush"),
        ("PENTIMENTO_IMAGES", "s3://pictures/of/tests"),
        ("AWS_ENDPOINT_URL", store),
        ("AWS_ACCESS_KEY_ID", "test-key"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ("AWS_REGION", "eu-central-1"),
    ];
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

impl Ground {
    /// None where this machine has no broker.
    pub(crate) async fn new() -> Option<Self> {
        let program = programs().pop()?;
        Some(Self {
            broker: Broker::start(program, "authorization { token: \"hush\" }"),
            store: S3Server::start().await,
        })
    }

    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        environment_of(self.broker.url().as_str(), &self.store.address())
    }

    /// One that answers callers.
    pub(crate) fn server(&self, more: &[(&str, &str)]) -> TestServer {
        let environment = self.environment();
        let environment = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        TestServer::start_with(&[], &environment.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// One that only answers, so that others must work.
    pub(crate) fn front(&self, more: &[(&str, &str)]) -> TestServer {
        self.server(&[&[("PENTIMENTO_RUNS_JOBS", "false")], more].concat())
    }

    pub(crate) fn worker(&self) -> TestWorker {
        TestWorker::start(&self.environment())
    }
}

/// ModelsLab's call with something changed in its body.
pub(crate) async fn call(server: &TestServer, change: Value) -> Reply {
    let mut body = good_modelslab_body();
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    if let Some(key) = server.key() {
        body["key"] = key.into();
    }
    let path = format!("{}/api/v1/enterprise/img2img", server.base());
    send(http().post(path).json(&body)).await
}

/// What a server says under a path of its own API.
async fn look(server: &TestServer, path: &str) -> Value {
    let mut request = http().get(server.base() + path);
    if let Some(key) = server.key() {
        request = request.bearer_auth(key);
    }
    send(request).await.json()
}

/// Its picture's address.
pub(crate) async fn picture(server: &TestServer, change: Value) -> String {
    let reply = call(server, change).await.json();
    assert_eq!(reply["status"], "success", "{reply}");
    reply["output"][0].as_str().unwrap().to_owned()
}

/// The id of a job of which the caller does not wait for the end.
pub(crate) async fn begun(server: &TestServer, change: Value) -> String {
    let reply = call(server, change).await.json();
    assert_eq!(reply["status"], "processing", "{reply}");
    let jobs = look(server, "/v1/jobs?limit=1").await;
    jobs["jobs"][0]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn job(server: &TestServer, id: &str) -> Value {
    look(server, &format!("/v1/jobs/{id}")).await
}

/// All machines that a server knows of.
pub(crate) async fn nodes(server: &TestServer) -> Vec<Value> {
    let reply = look(server, "/v1/cluster").await;
    reply["nodes"].as_array().cloned().unwrap_or_default()
}

/// Waits until something holds, which it must within two minutes.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..2400 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never comes that {what}");
}

/// Waits until `server` has heard of so many workers that have the embedded model.
pub(crate) async fn until_workers(server: &TestServer, count: usize) {
    until("the workers are heard", async || {
        let ready =
            |node: &&Value| node["works"] == true && node["models"].as_array().is_some_and(|m| !m.is_empty());
        (nodes(server).await.iter().filter(ready).count() == count).then_some(())
    })
    .await;
}
