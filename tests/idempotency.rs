//! Requests that are sent again, with and without a name: faults G 75 and G 76.

use serde_json::{Value, json};

use crate::support::client::{Reply, good_body, good_modelslab_body, http, send};
use crate::support::server::TestServer;

async fn novita(server: &TestServer, key: Option<&str>, body: &Value) -> Reply {
    let mut request = http()
        .post(format!("{}/v3/lcm-img2img", server.base()))
        .json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    send(request).await
}

async fn modelslab(server: &TestServer, path: &str, (key, body): (&str, &Value)) -> Reply {
    let address = format!("{}/api/v1/enterprise/{path}", server.base());
    send(http().post(address).header("idempotency-key", key).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn novitas_request_that_is_sent_again_is_the_same_job() {
    let server = TestServer::start();
    let mut body = good_body();
    // A random seed each time: two jobs would not have one.
    body["seed"] = json!(-1);
    let (one, two, three) = tokio::join!(
        novita(&server, Some("once"), &body),
        novita(&server, Some("once"), &body),
        novita(&server, Some("once"), &body),
    );
    let later = novita(&server, Some("once"), &body).await;
    let first = one.json();
    assert_eq!(one.status, 200, "{first}");
    for reply in [two, three, later] {
        let reply = reply.json();
        assert_eq!(
            (&reply["job_id"], &reply["images"][0]["seed"]),
            (&first["job_id"], &first["images"][0]["seed"])
        );
    }
    let other = novita(&server, Some("twice"), &body).await.json();
    assert_ne!(other["job_id"], first["job_id"]);
    let mut changed = body.clone();
    changed["prompt"] = json!("a blue house");
    let refused = novita(&server, Some("once"), &changed).await;
    let told = refused.json();
    assert_eq!(refused.status, 409, "{told}");
    assert_eq!(
        (&told["code"], &told["reason"], &told["metadata"]["field"]),
        (
            &json!(409),
            &json!("INVALID_REQUEST_BODY"),
            &json!("Idempotency-Key")
        )
    );
    for (key, status) in [("x".repeat(255), 200), ("x".repeat(256), 400)] {
        let reply = novita(&server, Some(&key), &body).await;
        assert_eq!(reply.status, status, "{}", reply.json());
    }
    // What was refused has used nothing up.
    let mut bad = body.clone();
    bad["steps"] = json!(99);
    assert_eq!(novita(&server, Some("bad"), &bad).await.status, 400);
    assert_eq!(novita(&server, Some("bad"), &body).await.status, 200);
    // Without a name each is a job of its own.
    let (one, two) = (
        novita(&server, None, &body).await.json(),
        novita(&server, None, &body).await.json(),
    );
    assert_ne!(one["job_id"], two["job_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn modelslabs_request_that_is_sent_again_is_the_same_job() {
    let server = TestServer::start();
    let mut body = good_modelslab_body();
    body["seed"] = Value::Null;
    let (one, two) = tokio::join!(
        modelslab(&server, "img2img", ("once", &body)),
        // Another path of the same call.
        modelslab(&server, "images/img2img", ("once", &body)),
    );
    let (one, two) = (one.json(), two.json());
    assert_eq!(one["status"], "success", "{one}");
    assert_eq!(
        (&one["id"], &one["meta"]["seed"]),
        (&two["id"], &two["meta"]["seed"])
    );
    // Another call is another request.
    let mut painted = body.clone();
    painted["mask_image"] = painted["init_image"].clone();
    for (path, body) in [("inpaint", &painted), ("img2img", &painted)] {
        let refused = modelslab(&server, path, ("once", body)).await;
        let told = refused.json();
        assert_eq!(
            (refused.status.as_u16(), &told["status"]),
            (200, &json!("error")),
            "{told}"
        );
        let message = told["message"].as_str().unwrap();
        assert!(
            message.starts_with("Idempotency-Key was used for another request"),
            "{told}"
        );
        assert_eq!(told["message"], told["messege"]);
    }
    let refused = modelslab(&server, "img2img", (&"x".repeat(256), &body))
        .await
        .json();
    let sentence = refused["message"]["Idempotency-Key"][0]
        .as_str()
        .unwrap_or_default();
    assert!(sentence.contains("1 to 255"), "{refused}");
    let fetch = format!("fetch/{}", one["id"]);
    let fetched = modelslab(&server, &fetch, ("once", &json!({"key": "any"}))).await;
    assert_eq!(
        fetched.json()["id"],
        one["id"],
        "a key means nothing where no job is made"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_name_goes_on_when_its_caller_hangs_up() {
    let server = TestServer::start();
    let mut body = good_body();
    body["steps"] = json!(8);
    body["image_num"] = json!(4);
    let request = http()
        .post(format!("{}/v3/lcm-img2img", server.base()))
        .header("Idempotency-Key", "once")
        .json(&body);
    let impatient = tokio::spawn(request.send());
    let jobs = async || {
        let ready = send(http().get(format!("{}/readyz", server.base()))).await.json();
        ready["jobs"]["queued"].as_u64().unwrap() + ready["jobs"]["running"].as_u64().unwrap()
    };
    while jobs().await == 0 && !impatient.is_finished() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    impatient.abort();
    let reply = novita(&server, Some("once"), &body).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
}
