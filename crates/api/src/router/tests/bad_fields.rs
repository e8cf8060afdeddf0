//! A bad value in any field: the field is named in its dialect's words, and no job is made of it.

use super::modelslab_calls::{modelslab, modelslab_body};
use super::openai_calls::openai;
use super::*;

/// Of all jobs, whatever became of them.
async fn jobs(router: &Router) -> usize {
    let listed = get(router, "/v1/jobs").await.json();
    listed["jobs"].as_array().unwrap().len()
}

#[tokio::test]
async fn modelslabs_bad_fields_are_named_and_nothing_is_queued() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (field, value) in [
        ("model_id", json!(7)),
        ("prompt", json!("a".repeat(10_001))),
        ("negative_prompt", json!("a".repeat(10_001))),
        ("init_image", json!(5)),
        ("mask_image", json!("not base64!")),
        ("width", json!("wide")),
        ("height", json!(5000)),
        ("samples", json!(9)),
        ("num_inference_steps", json!(0)),
        ("safety_checker", json!("maybe")),
        ("safety_checker_type", json!("fog")),
        ("enhance_prompt", json!("maybe")),
        ("guidance_scale", json!("much")),
        ("strength", json!(2)),
        ("tomesd", json!("half")),
        ("use_karras_sigmas", json!("maybe")),
        ("algorithm_type", json!("fast")),
        ("lora_strength", json!("strong")),
        ("lora_model", json!("a,b,c,d,e,f")),
        ("embeddings_model", json!("a,b,c,d,e,f")),
        ("seed", json!("lucky")),
        ("scheduler", json!("Nonsense")),
        ("loadbalancer", json!("two")),
        ("clip_skip", json!(99)),
        ("ip_adapter_scale", json!(7)),
        ("ip_adapter_image", json!("not base64!")),
        ("webhook", json!("ftp://example.com")),
        ("track_id", json!({})),
        ("base64", json!("maybe")),
        ("temp", json!("maybe")),
        ("soft_edge", json!(9999)),
    ] {
        let mut body = modelslab_body();
        body["mask_image"] = body["init_image"].clone();
        body[field] = value;
        let request = modelslab("/api/v1/enterprise/inpaint", body.to_string());
        let refused = send(&router, request).await.json();
        assert_eq!(refused["status"], "error", "{field}: {refused}");
        assert!(refused["message"][field][0].is_string(), "{field}: {refused}");
    }
    assert_eq!(jobs(&router).await, 0);
}

#[tokio::test]
async fn openais_bad_fields_are_named_and_nothing_is_queued() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (field, value) in [
        ("image", json!("not base64!")),
        ("images", json!([{"file_id": "file-1"}])),
        ("prompt", json!("a".repeat(32_001))),
        ("mask", json!("not base64!")),
        ("markup", json!("AAAA")),
        ("model", json!(7)),
        ("n", json!(11)),
        ("size", json!("100x100")),
        ("quality", json!("best")),
        ("input_fidelity", json!("none")),
        ("output_format", json!("gif")),
        ("output_compression", json!(101)),
        ("response_format", json!("file")),
        ("background", json!("transparent")),
        ("stream", json!("perhaps")),
        ("partial_images", json!(4)),
        ("negative_prompt", json!("a".repeat(32_001))),
        ("seed", json!("lucky")),
        ("steps", json!(0)),
        ("guidance_scale", json!("much")),
        ("scheduler", json!("Nonsense")),
        ("use_karras_sigmas", json!("maybe")),
        ("clip_skip", json!(13)),
        ("vae", json!({})),
        ("loras", json!("a,b")),
        ("strength", json!(2)),
        ("ip_adapter", json!(1)),
        ("ip_adapter_scale", json!(7)),
        ("soft_edge", json!(9999)),
    ] {
        let mut body = json!({"prompt": "a house", "image": image_file()});
        body[field] = value;
        let refused = openai(&router, "edits", &body).await;
        assert_eq!(refused.status, 400, "{field}: {}", refused.json());
        let named = refused.json()["error"]["param"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(named.starts_with(field), "{field}: {}", refused.json());
    }
    assert_eq!(jobs(&router).await, 0);
}

#[tokio::test]
async fn novitas_bad_fields_are_named_and_nothing_is_queued() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (field, value) in [
        ("input_image", json!("not base64!")),
        ("prompt", json!("a".repeat(1025))),
        ("negative_prompt", json!("a".repeat(1025))),
        ("image_num", json!(17)),
        ("steps", json!(9)),
        ("guidance_scale", json!("much")),
        ("seed", json!(-2)),
        ("clip_skip", json!(13)),
        ("strength", json!(2)),
    ] {
        let mut body = good("a house");
        body[field] = value;
        let refused = send(&router, post(&body)).await;
        assert_eq!(refused.status, 400, "{field}");
        assert_eq!(refused.json()["metadata"]["field"], field, "{}", refused.json());
    }
    assert_eq!(jobs(&router).await, 0);
    assert_eq!(send(&router, post(&good("a house"))).await.status, 200);
    assert_eq!(jobs(&router).await, 1, "the list would show one");
}
