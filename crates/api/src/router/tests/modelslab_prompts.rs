//! What `enhance_prompt` does to a request, from the call to the record, the reply and the picture.

use pentimento_service::image_codec::read_metadata;

use super::modelslab_calls::{modelslab, modelslab_body};
use super::*;

const WORDS: &str = "women playing tennis";

fn call(name: &str, body: &Value) -> Request<Body> {
    modelslab(&format!("/api/v1/enterprise/{name}"), body.to_string())
}

fn body(enhance: Option<&str>) -> Value {
    let mut body = modelslab_body();
    body["prompt"] = json!(WORDS);
    body["mask_image"] = body["init_image"].clone();
    body["samples"] = json!(1);
    body["enhance_prompt"] = json!(enhance);
    body
}

/// The reply, and the picture's file.
async fn made(router: &Router, name: &str, body: &Value) -> (Value, bytes::Bytes) {
    let reply = send(router, call(name, body)).await.json();
    assert_eq!(reply["status"], "success", "{reply}");
    assert!(reply.get("warning").is_none(), "{reply}");
    let address = reply["output"][0].as_str().unwrap();
    let file = get(router, address.strip_prefix("http://pictures.test").unwrap()).await;
    (reply, file.body)
}

#[tokio::test]
async fn added_words_are_in_the_reply_the_record_and_the_picture() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for name in ["img2img", "inpaint"] {
        for enhance in [None, Some("yes")] {
            let (reply, file) = made(&router, name, &body(enhance)).await;
            let (prompt, negative) = (&reply["meta"]["prompt"], &reply["meta"]["negative_prompt"]);
            assert!(
                prompt.as_str().unwrap().starts_with(&format!("{WORDS}, ")),
                "{reply}"
            );
            assert!(
                negative.as_str().unwrap().starts_with("((out of frame)), "),
                "{reply}"
            );
            assert_eq!(reply["meta"]["enhance_prompt"], "yes");
            let metadata = read_metadata(&file).unwrap();
            assert_eq!(json!(metadata.prompt), *prompt);
            assert_eq!(json!(metadata.negative_prompt), *negative);
            let number = &reply["id"];
            let fetched = send(&router, call(&format!("fetch/{number}"), &json!({})))
                .await
                .json();
            assert_eq!(fetched["meta"], reply["meta"]);
        }
    }
}

#[tokio::test]
async fn who_says_no_gets_the_very_bytes_of_a_server_that_adds_nothing() {
    let test = TestService::start(FakeExecutor::new());
    let (adding, mut quiet) = (router(&test, &[]), config());
    quiet.modelslab.enhance_prompt = false;
    let quiet = router_with(&test, &[], quiet);
    for name in ["img2img", "inpaint"] {
        let (plain, file) = made(&quiet, name, &body(None)).await;
        assert_eq!(
            (&plain["meta"]["prompt"], &plain["meta"]["negative_prompt"]),
            (&json!(WORDS), &json!(""))
        );
        assert_eq!(plain["meta"]["enhance_prompt"], "no");
        assert_eq!(made(&adding, name, &body(Some("no"))).await.1, file);
        let (enhanced, other) = made(&quiet, name, &body(Some("yes"))).await;
        assert_ne!(enhanced["meta"]["prompt"], WORDS);
        assert_ne!(other, file);
        assert_eq!(made(&adding, name, &body(None)).await.1, other);
    }
}

#[tokio::test]
async fn a_limit_of_prompts_is_one_of_the_callers_own_words() {
    // Of 300 tokens.
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    let mut long = body(Some("yes"));
    long["prompt"] = json!("a ".repeat(300));
    let (reply, _) = made(&router, "img2img", &long).await;
    assert_eq!(
        reply["meta"]["prompt"], long["prompt"],
        "there is no room for others"
    );
    assert_ne!(reply["meta"]["negative_prompt"], "");
    long["prompt"] = json!("a ".repeat(301));
    let refused = send(&router, call("img2img", &long)).await.json();
    let sentence = refused["message"]["prompt"][0].as_str().unwrap();
    assert!(sentence.contains("has 301 tokens; at most 300"), "{sentence}");
}
