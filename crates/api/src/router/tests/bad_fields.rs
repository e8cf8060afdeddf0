//! A bad value in any field: the field is named in its dialect's words, and no job is made of it.

use super::a1111_calls::{a1111, a1111_body};
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
        ("differential_diffusion", json!("maybe")),
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
        ("differential_diffusion", json!("maybe")),
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

#[tokio::test]
async fn a1111s_bad_fields_are_named_and_nothing_is_queued() {
    let test = TestService::start(FakeExecutor::new());
    let router = router(&test, &[]);
    for (field, value) in [
        ("prompt", json!("a".repeat(10_001))),
        ("prompt", json!("<lora:nowhere:1>")),
        ("negative_prompt", json!(7)),
        ("init_images", json!(image_file())),
        ("init_images", json!(vec![image_file(); 17])),
        ("mask", json!("not base64!")),
        ("mask_blur", json!(65)),
        ("mask_blur_x", json!("wide")),
        ("mask_blur_y", json!(-1)),
        ("inpainting_fill", json!(4)),
        ("inpainting_fill", json!(3)),
        ("inpaint_full_res", json!("maybe")),
        ("inpaint_full_res_padding", json!(2000)),
        ("inpainting_mask_invert", json!(2)),
        ("resize_mode", json!(4)),
        ("denoising_strength", json!(1.5)),
        ("seed", json!("lucky")),
        ("sampler_name", json!("Nonsense")),
        ("scheduler", json!("Exponential")),
        ("steps", json!(0)),
        ("cfg_scale", json!("much")),
        ("width", json!(60)),
        ("height", json!(129)),
        ("batch_size", json!(17)),
        ("n_iter", json!(0)),
        ("eta", json!(2)),
        ("override_settings", json!([])),
        ("override_settings_restore_afterwards", json!("maybe")),
        ("send_images", json!(7)),
        ("include_init_images", json!({})),
        ("subseed_strength", json!(0.5)),
        ("seed_resize_from_h", json!(64)),
        ("seed_resize_from_w", json!(64)),
        ("restore_faces", json!(true)),
        ("tiling", json!(true)),
        ("s_churn", json!(1)),
        ("s_min_uncond", json!(1)),
        ("initial_noise_multiplier", json!(1.1)),
        ("token_merging_ratio", json!(0.5)),
        ("refiner_checkpoint", json!("demo")),
        ("enable_hr", json!(true)),
        ("script_name", json!("x/y/z plot")),
        ("alwayson_scripts", json!({"ControlNet": {}})),
        ("disable_extra_networks", json!(true)),
        ("infotext", json!("Steps: 3")),
    ] {
        let mut body = a1111_body();
        body["mask"] = json!(image_file());
        body["mask_blur"] = json!(0);
        body["inpaint_full_res"] = json!(false);
        if field.starts_with("mask_blur_") {
            body["mask_blur"] = Value::Null;
        }
        body[field] = value;
        let refused = send(&router, a1111("img2img", &body)).await;
        assert_eq!(refused.status, 422, "{field}: {}", refused.json());
        assert_eq!(refused.json()["detail"][0]["loc"][1], field, "{}", refused.json());
        let text = refused.json()["detail"][0]["msg"].as_str().unwrap().to_owned();
        assert!(text.starts_with(field), "{text}");
    }
    assert_eq!(jobs(&router).await, 0);
    assert_eq!(send(&router, a1111("img2img", &a1111_body())).await.status, 200);
    assert_eq!(jobs(&router).await, 1, "the list would show one");
}
