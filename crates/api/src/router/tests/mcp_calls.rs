//! The Model Context Protocol through the whole application: what agents send, and what stands before it.

use super::*;

fn message(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

async fn mcp(router: &Router, (key, body): (&str, String)) -> Reply {
    let request = Request::post("/mcp")
        .header("host", "pictures.test")
        .header("authorization", key)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    send(router, request.body(Body::from(body)).unwrap()).await
}

async fn tool(router: &Router, name: &str, arguments: Value) -> Value {
    let call = message("tools/call", &json!({"name": name, "arguments": arguments}));
    let reply = mcp(router, ("", call.to_string())).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    reply.json()["result"].clone()
}

#[tokio::test]
async fn an_agent_is_told_the_tools_and_uses_them() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let hello = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    });
    let reply = mcp(&router, ("", message("initialize", &hello).to_string()))
        .await
        .json();
    assert_eq!(reply["result"]["serverInfo"]["name"], "pentimento", "{reply}");
    assert_eq!(reply["result"]["protocolVersion"], "2025-06-18");
    let reply = mcp(&router, ("", message("tools/list", &json!({})).to_string()))
        .await
        .json();
    let names: Vec<&str> = reply["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["generate_image", "job_status", "cancel_job", "list_models"]
    );

    let made = tool(
        &router,
        "generate_image",
        json!({"prompt": "a house", "image": image_file(), "seed": 5, "n": 2}),
    )
    .await;
    let kinds: Vec<&str> = made["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["image", "image", "text"], "{made}");
    assert_eq!(made["structuredContent"]["images"][1]["seed"], 6);
    let id = &made["structuredContent"]["job_id"];
    let job = tool(&router, "job_status", json!({"id": id})).await;
    assert_eq!(job["structuredContent"]["state"], "succeeded", "{job}");
    assert_eq!(job["structuredContent"]["dialect"], "mcp");
    let models = tool(&router, "list_models", json!({})).await;
    assert_eq!(models["structuredContent"]["models"][0]["name"], "demo");
    assert_eq!(test.parts.memory.held(pentimento_types::MemoryUse::Replies), 0);
}

#[tokio::test]
async fn what_goes_wrong_is_said_to_the_agent() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (name, arguments, text) in [
        ("generate_image", json!({}), "prompt is required"),
        (
            "generate_image",
            json!({"prompt": "x", "steps": 0}),
            "steps must be",
        ),
        (
            "generate_image",
            json!({"prompt": "x", "model": "dmeo"}),
            "model: there is no checkpoint named `dmeo`",
        ),
        (
            "generate_image",
            json!({"prompt": "x", "mask": image_file()}),
            "mask needs an image",
        ),
        (
            "generate_image",
            json!({"prompt": "x", "wait": "perhaps"}),
            "wait must be true or false",
        ),
        ("job_status", json!({"id": "job_1"}), "id must be"),
        ("cancel_job", json!({}), "id must be"),
    ] {
        let refused = tool(&router, name, arguments).await;
        assert_eq!(refused["isError"], true, "{refused}");
        let said = refused["content"][0]["text"].as_str().unwrap();
        assert!(said.starts_with(text), "{said}");
    }
    let call = message("tools/call", &json!({"name": "nothing"}));
    let unknown = mcp(&router, ("", call.to_string())).await.json();
    assert!(
        unknown["error"]["message"]
            .as_str()
            .unwrap()
            .contains("generate_image"),
        "{unknown}"
    );
}

#[tokio::test]
async fn what_is_no_message_and_who_has_no_key_gets_no_further() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[("me", "sk_1")]);
    let list = message("tools/list", &json!({})).to_string();
    let many = format!("{{\"jsonrpc\": \"2.0\", \"params\": [{}0]}}", "0,".repeat(5000));
    for (key, body, status) in [
        ("", list.clone(), 401),
        ("sk_2", list.clone(), 401),
        ("Bearer sk_1", list, 200),
        ("Bearer sk_1", many, 400),
        ("Bearer sk_1", "[]".to_owned(), 400),
        ("Bearer sk_1", "{".to_owned(), 400),
    ] {
        let reply = mcp(&router, (key, body)).await;
        assert_eq!(reply.status, status, "{key}: {:?}", reply.body);
    }
    let request = Request::get("/mcp").header("authorization", "sk_1");
    let reply = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(reply.status, 405, "there are no streams to listen to");
}

#[tokio::test]
async fn what_goes_wrong_inside_of_an_answer_is_counted_like_any_failed_call() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let refused = async |kind: &str| {
        let page = get(&router, "/metrics").await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let name = format!("pentimento_http_refused_total{{kind=\"{kind}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0.0, |count| count.parse::<f64>().unwrap())
    };
    tool(&router, "list_models", json!({})).await;
    assert_eq!(refused("invalid_input").await, 0.0);
    tool(&router, "job_status", json!({"id": "job_1"})).await;
    assert_eq!(refused("invalid_input").await, 1.0);
    let strange = format!("job_{}", "0".repeat(32));
    tool(&router, "job_status", json!({"id": strange})).await;
    assert_eq!(refused("not_found").await, 1.0);
    for wrong in [
        message("tools/call", &json!({"name": "nothing"})).to_string(),
        message("resources/list", &json!({})).to_string(),
        "{".to_owned(),
    ] {
        mcp(&router, ("", wrong)).await;
    }
    assert_eq!(refused("invalid_input").await, 4.0);
}
