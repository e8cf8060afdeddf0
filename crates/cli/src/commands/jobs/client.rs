//! Asks a server, and says in plain words why it did not answer.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::{Method, Response};
use serde_json::Value;
use url::Url;

use crate::config::{ClientConfig, Secret};

/// For the connection, and for the whole of a short answer.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);

/// The way to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    key: Option<Secret>,
}

impl Client {
    pub(super) fn new(config: &ClientConfig) -> anyhow::Result<Self> {
        Ok(Self {
            http: reqwest::Client::builder().connect_timeout(CONNECT).build()?,
            server: config.server.clone(),
            key: config.key.clone(),
        })
    }

    pub(super) async fn get(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, query).await
    }

    pub(super) async fn post(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, &[]).await
    }

    pub(super) async fn delete(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.ask(Method::DELETE, path, query).await
    }

    async fn ask(&self, method: Method, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let request = self.request(method, path, query).timeout(ANSWER);
        let response = self.answered(request.send().await)?;
        checked(response)
            .await?
            .json()
            .await
            .context("the answer is no JSON")
    }

    /// An answer that goes on and on, from behind the event `last`. None when there is nothing behind it.
    pub(super) async fn events(&self, path: &str, last: Option<&str>) -> anyhow::Result<Option<Response>> {
        let mut request = self.request(Method::GET, path, &[("previews", "false".to_owned())]);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = checked(self.answered(request.send().await)?).await?;
        Ok(Some(response).filter(|response| response.status() != 204))
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> reqwest::RequestBuilder {
        let mut address = self.server.clone();
        let root = address.path().trim_end_matches('/').to_owned();
        address.set_path(&format!("{root}/{path}"));
        if !query.is_empty() {
            address.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, address);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    fn answered(&self, sent: reqwest::Result<Response>) -> anyhow::Result<Response> {
        sent.map_err(reqwest::Error::without_url).with_context(|| {
            format!(
                "no server answers at {}; is it running? --server URL, or PENTIMENTO_SERVER, names another",
                self.server
            )
        })
    }
}

/// What is not as it should be, in the server's own words.
async fn checked(response: Response) -> anyhow::Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body: Value = response.json().await.unwrap_or_default();
    let message = text(&body["error"]["message"]);
    match (status.as_u16(), message.as_str()) {
        (401 | 403, message) => bail!("the server refused the key ({message}); set PENTIMENTO_KEY or --key"),
        (_, "") => bail!("the server answered {status}; is it a Pentimento?"),
        (_, message) => bail!("{message}"),
    }
}

/// A value as a person reads it; nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
