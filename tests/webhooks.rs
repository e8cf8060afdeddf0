//! Webhooks of the real binary: what a receiver gets, that it is signed, and how it is sent again.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::sync::mpsc;

use crate::support::client::{get, good_modelslab_body, http, send};
use crate::support::server::TestServer;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One message.
struct Message {
    headers: HeaderMap,
    body: String,
}

impl Message {
    fn id(&self) -> &str {
        self.headers["webhook-id"].to_str().unwrap()
    }

    /// Once it is verified.
    fn verified(&self) -> Value {
        let webhook = Webhook::new(SECRET).unwrap();
        webhook.verify(self.body.as_bytes(), &self.headers).unwrap();
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver that answers with these, and from then on with the last.
struct Receiver {
    address: SocketAddr,
    messages: mpsc::UnboundedReceiver<Message>,
}

impl Receiver {
    async fn start(answers: &[StatusCode]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, messages) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let receive = move |headers: HeaderMap, body: String| {
            let (tell, answers) = (tell.clone(), Arc::clone(&answers));
            async move {
                let _ = tell.send(Message { headers, body });
                let mut answers = answers.lock().unwrap();
                if answers.len() > 1 {
                    answers.remove(0)
                } else {
                    answers[0]
                }
            }
        };
        let routes = Router::new().route("/hook", post(receive));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, messages }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    async fn next(&mut self) -> Message {
        let message = tokio::time::timeout(Duration::from_secs(120), self.messages.recv());
        message.await.expect("a webhook comes").unwrap()
    }
}

fn server(environment: &[(&str, &str)]) -> TestServer {
    let mut all = vec![
        ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
        ("PENTIMENTO_WEBHOOK_SECRET", SECRET),
    ];
    all.extend(environment);
    TestServer::start_with(&[], &all)
}

async fn call(server: &TestServer, path: &str, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/{path}", server.base());
    send(http().post(address).json(body)).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_is_told_in_the_replys_shape() {
    let mut receiver = Receiver::start(&[StatusCode::NO_CONTENT]).await;
    let server = server(&[("PENTIMENTO_MODELSLAB_INLINE_BASE64", "true")]);
    for track_id in [json!("order_12345"), json!(12345), json!(1.5), Value::Null] {
        let mut body = good_modelslab_body();
        body["webhook"] = json!(receiver.url());
        body["track_id"] = track_id.clone();
        body["base64"] = json!("yes");
        let reply = call(&server, "img2img", &body).await;
        assert_eq!(reply["status"], "success", "{reply}");
        let message = receiver.next().await;
        assert!(message.id().starts_with("msg_"), "{:?}", message.headers);
        let told = message.verified();
        assert_eq!(told["track_id"], track_id, "{told}");
        assert_eq!(
            told["output"], reply["future_links"],
            "links, and never the file itself"
        );
        for name in ["status", "id", "generationTime", "proxy_links", "meta", "warning"] {
            assert_eq!(told[name], reply[name], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_with_its_reason() {
    let mut receiver = Receiver::start(&[StatusCode::OK]).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = server(&[("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "0")]);
    let mut body = good_modelslab_body();
    body["init_image"] = json!(format!("http://{}/a.png", silent.local_addr().unwrap()));
    body["webhook"] = json!(receiver.url());
    body["track_id"] = json!("order");
    let reply = call(&server, "img2img", &body).await;
    assert_eq!(reply["status"], "processing", "{reply}");
    drop(silent.accept().await.unwrap());
    let told = receiver.next().await.verified();
    assert_eq!(
        (&told["status"], &told["id"], &told["track_id"], &told["output"]),
        (&json!("failed"), &reply["id"], &json!("order"), &json!([])),
        "{told}"
    );
    assert_eq!(told["message"], told["messege"]);
    assert!(
        told["message"].as_str().unwrap().contains("could not be fetched"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_was_given_up_is_sent_again_by_the_command() {
    let mut receiver = Receiver::start(&[StatusCode::GONE, StatusCode::OK]).await;
    let server = server(&[("PENTIMENTO_KEYS", "other=sk_2,tests=sk_1")]);
    let mut body = good_modelslab_body();
    body["key"] = json!("sk_1");
    body["webhook"] = json!(receiver.url());
    assert_eq!(call(&server, "img2img", &body).await["status"], "success");
    let first = receiver.next().await;
    let list = async |key: &str| {
        let address = format!("{}/v1/webhooks?state=dead", server.base());
        let list = send(http().get(address).bearer_auth(key)).await.json();
        list["webhooks"].as_array().unwrap().clone()
    };
    let mut dead = Vec::new();
    while dead.is_empty() {
        dead = list("sk_1").await;
    }
    assert_eq!(dead[0]["id"], first.id());
    assert!(dead[0]["problem"].as_str().unwrap().contains("410"), "{dead:?}");
    assert!(list("sk_2").await.is_empty(), "it is nobody else's");
    let id = first.id().to_owned();
    let stranger = format!("{}/v1/webhooks/{id}/replay", server.base());
    let refused = send(http().post(&stranger).bearer_auth("sk_2")).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(
        send(http().post(&stranger)).await.status,
        StatusCode::UNAUTHORIZED
    );
    let nonsense = format!("{}/v1/webhooks/x/replay", server.base());
    let refused = send(http().post(&nonsense).bearer_auth("sk_1")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let folder = tempfile::tempdir().unwrap();
    let replay = |key: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args(["jobs", "replay-webhook", &id, "--server", &server.base()])
            .args(key)
            .env("PENTIMENTO_KEYS", "other=sk_2,tests=sk_1")
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let command = replay(&[]);
    let said = String::from_utf8_lossy(&command.stderr);
    assert!(
        !command.status.success() && said.contains("--key"),
        "another server gets no key of the settings: {command:?}"
    );
    let command = replay(&["--key", "sk_1"]);
    let said = String::from_utf8_lossy(&command.stdout);
    assert!(command.status.success() && said.contains(&id), "{command:?}");
    let again = receiver.next().await;
    assert_eq!((again.id(), &again.body), (id.as_str(), &first.body));
    again.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_sent_again_by_itself() {
    let mut receiver = Receiver::start(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK]).await;
    let server = server(&[]);
    let mut body = good_modelslab_body();
    body["webhook"] = json!(receiver.url());
    assert_eq!(call(&server, "img2img", &body).await["status"], "success");
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!((first.id(), &first.body), (second.id(), &second.body));
    second.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_inside_is_refused_at_once_with_its_field() {
    let server = TestServer::start();
    for address in [
        "http://127.0.0.1:8000/hook",
        "http://2130706433/hook",
        "http://localhost/hook",
        "http://redis/hook",
        "http://[::1]:8000/hook",
        "http://169.254.169.254/latest/",
        "https://user:word@example.com/hook",
        "https://example.com:22/hook",
    ] {
        let mut body = good_modelslab_body();
        body["webhook"] = json!(address);
        let reply = call(&server, "img2img", &body).await;
        assert_eq!(reply["status"], "error", "{address}: {reply}");
        let sentence = reply["message"]["webhook"][0].as_str().unwrap_or_default();
        assert!(
            sentence.starts_with("The webhook field cannot be used"),
            "{address}: {reply}"
        );
    }
    let index = get(&format!("{}/readyz", server.base())).await.json();
    assert_eq!(index["jobs"]["queued"], 0);
}

#[test]
fn the_secret_is_made_once_and_shown_by_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let show = |environment: &[(&str, &str)]| {
        let command = Command::new(env!("CARGO_BIN_EXE_pentimento"))
            .args(["jobs", "webhook-secret", "--data", "data"])
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            command.status.code(),
            String::from_utf8(command.stdout).unwrap().trim().to_owned(),
            String::from_utf8(command.stderr).unwrap(),
        )
    };
    let (code, first, _) = show(&[]);
    assert_eq!(code, Some(0));
    assert!(
        Webhook::new(&first).is_ok() && first.starts_with("whsec_"),
        "{first}"
    );
    assert_eq!(show(&[]).1, first);
    assert_eq!(show(&[("PENTIMENTO_WEBHOOK_SECRET", SECRET)]).1, SECRET);
    let (code, _, complaint) = show(&[("PENTIMENTO_WEBHOOK_SECRET", "whsec_short")]);
    assert_eq!(code, Some(2), "{complaint}");
    assert!(
        complaint.contains("PENTIMENTO_WEBHOOK_SECRET") && !complaint.contains("whsec_short"),
        "{complaint}"
    );
}
