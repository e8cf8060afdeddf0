//! Picture servers that do not answer: the caller is answered all the same, and finds the job later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::support::client::{get as fetch_file, good_modelslab_body, http, send};
use crate::support::pictures;
use crate::support::server::TestServer;

const LONG: Duration = Duration::from_secs(20);

/// Has every file of the scenarios' pictures, and gives one for each permit.
struct Held {
    address: SocketAddr,
    asked: watch::Receiver<usize>,
    permits: Arc<Semaphore>,
}

impl Held {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (ask, asked) = watch::channel(0);
        let permits = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&permits);
        let answer = move |Path(name): Path<String>| {
            let (ask, held) = (ask.clone(), Arc::clone(&held));
            async move {
                ask.send_modify(|asked| *asked += 1);
                held.acquire().await.expect("it is never closed").forget();
                pictures::bytes(&name)
            }
        };
        let routes = Router::new().route("/{name}", get(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            asked,
            permits,
        }
    }

    fn url(&self, name: &str) -> Value {
        json!(format!("http://{}/{name}", self.address))
    }
}

fn server() -> TestServer {
    let settings = [
        ("PENTIMENTO_ALLOW_PRIVATE_URLS", "true"),
        ("PENTIMENTO_MODELSLAB_HOLD_SECONDS", "1"),
    ];
    TestServer::start_with(&[], &settings)
}

async fn call(server: &TestServer, path: &str, body: &Value) -> Value {
    let address = format!("{}/api/v1/enterprise/{path}", server.base());
    let reply = send(http().post(address).json(body));
    let reply = tokio::time::timeout(LONG, reply).await;
    reply
        .expect("the caller is answered though its pictures are not")
        .json()
}

/// Asks until the job has ended.
async fn ended(server: &TestServer, id: &Value) -> Value {
    let asking = async {
        loop {
            let found = call(server, &format!("fetch/{id}"), &json!({"key": "any"})).await;
            if found["status"] != "processing" {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, asking).await.expect("the job ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_answered_while_its_pictures_are_not_there() {
    let (server, mut held) = (server(), Held::start().await);
    let mut body = good_modelslab_body();
    body["init_image"] = held.url("small.png");
    body["mask_image"] = held.url("small.png");
    // Nothing is given out before the answer is here.
    let reply = call(&server, "inpaint", &body).await;
    assert_eq!(reply["status"], "processing", "{reply}");
    assert!(reply["eta"].as_u64().is_some_and(|eta| eta > 0), "{reply}");
    assert_eq!(*held.asked.borrow_and_update(), 2, "both at the same time");
    let found = call(&server, &format!("fetch/{}", reply["id"]), &json!({})).await;
    assert_eq!(
        (&found["status"], &found["id"]),
        (&json!("processing"), &reply["id"])
    );
    held.permits.add_permits(2);
    let made = ended(&server, &reply["id"]).await;
    assert_eq!(made["status"], "success", "{made}");
    assert_eq!(made["output"], reply["future_links"]);
    let file = fetch_file(made["output"][0].as_str().expect("an address")).await;
    assert_eq!(file.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_cannot_be_used_in_the_end_fails_the_job() {
    let (server, held) = (server(), Held::start().await);
    let mut body = good_modelslab_body();
    body["init_image"] = held.url("document.pdf");
    let reply = call(&server, "img2img", &body).await;
    assert_eq!(reply["status"], "processing", "{reply}");
    held.permits.add_permits(1);
    let failed = ended(&server, &reply["id"]).await;
    assert_eq!(
        (&failed["status"], &failed["id"]),
        (&json!("failed"), &reply["id"])
    );
    let message = failed["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("init_image: the picture cannot be read"),
        "{failed}"
    );
    // The same within the hold is a refusal that names the field.
    held.permits.add_permits(1);
    let refused = call(&server, "img2img", &body).await;
    assert_eq!(refused["status"], "error", "{refused}");
    assert!(refused["message"]["init_image"][0].is_string(), "{refused}");
}
