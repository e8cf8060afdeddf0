//! Every field of the calls: what is taken, what it becomes, and what is refused how.

use std::path::Path;

use bytes::Bytes;
use pentimento_types::Task;
use serde_json::{Value, json};

use super::*;
use crate::dialects::field::describe;

const RANDOM: u64 = 77;

fn catalog() -> Catalog {
    let text = "[[model]]\nname = \"first\"\nkind = \"checkpoint\"\nsource = \"first.safetensors\"\naliases = [\"gpt-image-1\"]\n\
                [[model]]\nname = \"large\"\nkind = \"checkpoint\"\nsource = \"large.safetensors\"\nbase = \"sdxl\"\n";
    Catalog::from_text(text, Path::new("models.toml")).unwrap()
}

fn convert(body: &Value, call: Call) -> Result<ParsedCall, FieldError> {
    let fields = parse_object(body.to_string().as_bytes(), &names(call.tables())).expect("valid JSON");
    to_call(fields, call, (&catalog(), RANDOM))
}

fn good() -> Value {
    json!({"prompt": "a house", "image": "AAAA"})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn edit(field: &str, value: Value) -> ParsedCall {
    convert(&with(field, value.clone()), Call::Edit).unwrap_or_else(|e| panic!("{field} = {value}: {e}"))
}

fn refused(field: &str, value: Value) -> FieldError {
    convert(&with(field, value.clone()), Call::Edit).expect_err(&format!("{field} = {value} was accepted"))
}

fn file() -> ImageSource {
    ImageSource::Inline(Bytes::from_static(&[0, 0, 0]))
}

#[test]
fn a_minimal_body_gets_the_documented_defaults() {
    let call = convert(&good(), Call::Edit).unwrap();
    let recipe = &call.recipe;
    assert_eq!(
        (recipe.model.as_str(), recipe.prompt.as_str()),
        ("first", "a house")
    );
    assert_eq!((recipe.image_count, recipe.steps, recipe.seed), (1, 20, RANDOM));
    assert_eq!((recipe.guidance_scale, recipe.strength), (7.5, 0.75));
    assert_eq!(
        (call.inputs.init(), call.inputs.mask(), call.fit),
        (Some(&file()), None, Fit::Open(None))
    );
    assert_eq!(
        call.style,
        ReplyStyle {
            links: false,
            stream: None,
            quality: "medium"
        }
    );
    let generation = convert(&json!({"prompt": "a house"}), Call::Generation).unwrap();
    assert_eq!(generation.inputs.task(), Task::TextToImage);
    assert_eq!(
        generation.inputs,
        Inputs::from_noise(Size {
            width: 512,
            height: 512
        })
    );
    let variation = convert(&json!({"image": "AAAA"}), Call::Variation).unwrap();
    assert_eq!(
        (variation.recipe.guidance_scale, variation.recipe.strength),
        (1.0, 0.5)
    );
}

#[test]
fn a_model_is_one_of_the_catalogue_or_the_default_under_openais_names() {
    for (name, expected, links) in [
        ("large", "large", false),
        ("gpt-image-1", "gpt-image-1", false),
        ("gpt-image-2.5-flare", "first", false),
        ("chatgpt-image-latest", "first", false),
        ("dall-e-2", "first", true),
        // The service refuses it by name.
        ("unknown", "unknown", false),
        (" ", "first", false),
    ] {
        let call = edit("model", json!(name));
        assert_eq!(
            (call.recipe.model.as_str(), call.style.links),
            (expected, links),
            "{name}"
        );
    }
    let large = convert(&json!({"prompt": "x", "model": "large"}), Call::Generation).unwrap();
    assert_eq!(
        large.inputs,
        Inputs::from_noise(Size {
            width: 1024,
            height: 1024
        })
    );
}

#[test]
fn what_is_sent_becomes_the_recipe() {
    let body = json!({
        "prompt": "a house", "images": [{"image_url": "data:image/png;base64,AAAA"}],
        "mask": {"image_url": "https://example.com/mask.png"},
        "n": 3, "size": "128x64", "quality": "hd", "output_format": "jpeg", "output_compression": 0,
        "response_format": "url", "background": "opaque", "stream": true, "partial_images": 2, "user": "me",
        "moderation": "low", "negative_prompt": "blur", "seed": 5, "strength": 0.25, "guidance_scale": "3",
        "scheduler": "ddim", "clip_skip": 2, "vae": "v", "soft_edge": 4, "differential_diffusion": true,
        "loras": [{"model": "a"}, {"model": "b", "strength": 0.5, "else": 1}], "nonsense": 1,
    });
    let call = convert(&body, Call::Edit).unwrap();
    let recipe = &call.recipe;
    assert_eq!(call.inputs.init(), Some(&file()));
    let mask = ImageSource::Url("https://example.com/mask.png".to_owned());
    assert_eq!(call.inputs.mask(), Some(&mask));
    assert_eq!(
        (recipe.image_count, recipe.steps, recipe.seed, recipe.soft_edge),
        (3, 30, 5, 4)
    );
    assert_eq!(
        call.fit,
        Fit::To(Size {
            width: 128,
            height: 64
        })
    );
    assert_eq!(
        (call.delivery.format, call.delivery.jpeg_quality),
        (ImageFormat::Jpeg, Some(1))
    );
    let style = (call.style.links, call.style.stream, call.style.quality);
    assert_eq!(style, (true, Some(2), "high"));
    assert_eq!(
        (recipe.strength, recipe.guidance_scale, recipe.clip_skip),
        (0.25, 3.0, 2)
    );
    assert_eq!(recipe.scheduler.kind, Some(SchedulerKind::DDIM));
    let loras: Vec<(&str, f64)> = recipe
        .loras
        .iter()
        .map(|lora| (lora.model.as_str(), lora.strength))
        .collect();
    assert_eq!(loras, [("a", 1.0), ("b", 0.5)]);
    assert!(recipe.differential_diffusion);
    assert_eq!(call.ignored, ["loras[1].else", "nonsense"]);
}

#[test]
fn strength_is_what_fidelity_says_and_a_mask_is_filled() {
    let strength = |body: &Value| convert(body, Call::Edit).unwrap().recipe.strength;
    let mut body = with("mask", json!("AAAA"));
    assert_eq!(strength(&body), 1.0);
    body["input_fidelity"] = json!("high");
    assert_eq!(strength(&body), 0.5);
    assert_eq!(strength(&with("input_fidelity", json!("low"))), 0.75);
    body["strength"] = json!(0.9);
    assert_eq!(strength(&body), 0.9);
}

#[test]
fn a_second_image_is_for_an_adapter() {
    let mut body = with("image", json!(["AAAA", "AAAB"]));
    let refused = convert(&body, Call::Edit).unwrap_err();
    assert!(
        refused.message.starts_with("image may be one image here, got 2"),
        "{refused}"
    );
    body["ip_adapter"] = json!("plus");
    body["ip_adapter_scale"] = json!(0.5);
    let call = convert(&body, Call::Edit).unwrap();
    let adapter = call.recipe.ip_adapter.unwrap();
    assert_eq!((adapter.model.as_str(), adapter.scale), ("plus", 0.5));
    assert!(call.inputs.ip_adapter().is_some());
    body["image"] = json!("AAAA");
    assert!(convert(&body, Call::Edit).is_err());
}

#[test]
fn loras_may_be_a_json_text_as_forms_have_them() {
    let call = edit("loras", json!(r#"[{"model": "a", "strength": -1}]"#));
    assert_eq!(call.recipe.loras[0].strength, -1.0);
    assert!(edit("loras", json!("")).recipe.loras.is_empty());
    for wrong in ["a,b", "{}", "[1", "[]],\"x\":[1"] {
        assert_eq!(refused("loras", json!(wrong)).field, "loras", "{wrong}");
    }
}

#[test]
fn a_bad_value_is_refused_by_name() {
    for (field, value, text) in [
        ("prompt", json!(""), "prompt is required"),
        ("prompt", json!("x".repeat(32_001)), "at most 32000 characters"),
        ("image", json!(""), "image is required"),
        ("image", json!("not base64!"), "is not base64"),
        ("image", json!([{"file_id": "file-1"}]), "no files are kept here"),
        ("mask", json!("ftp://example.com"), "is not base64"),
        ("mask", json!(""), "mask is empty"),
        ("mask[]", json!(" "), "mask[] is empty"),
        ("markup", json!("AAAA"), "cannot be used here"),
        ("n", json!(11), "[1, 10]"),
        ("size", json!("512"), "WIDTHxHEIGHT"),
        ("size", json!("100x100"), "multiples of 8"),
        ("size", json!("4096x512"), "to 2048"),
        ("quality", json!("best"), "must be one of auto, low"),
        ("output_format", json!("gif"), "must be one of png, jpeg, webp"),
        ("output_compression", json!(101), "[0, 100]"),
        ("response_format", json!("file"), "must be one of url, b64_json"),
        ("background", json!("transparent"), "must be one of auto, opaque"),
        ("input_fidelity", json!("none"), "must be one of low, high"),
        ("stream", json!("perhaps"), "must be true or false"),
        ("stream", json!([]), "must be true or false"),
        ("partial_images", json!(4), "[0, 3]"),
        ("seed", json!(-2), "[-1, "),
        ("strength", json!(1.5), "[0, 1]"),
        ("steps", json!(0), "[1, 150]"),
        ("guidance_scale", json!(21), "[0, 20]"),
        ("scheduler", json!("fast"), "is one of DDPMScheduler"),
        ("clip_skip", json!(13), "[1, 12]"),
        ("loras", json!([{"strength": 1}]), "loras[0].model is required"),
        ("loras", json!([{"model": "a"}, {"model": "a"}]), "a second time"),
        ("soft_edge", json!(257), "[0, 256]"),
        ("ip_adapter_scale", json!(2), "[0, 1]"),
    ] {
        let refusal = refused(field, value);
        let place = refusal.field.as_str();
        assert!(place.starts_with(field), "{field}: {refusal}");
        assert!(refusal.message.contains(text), "{field}: {refusal}");
    }
    let mut karras = with("scheduler", json!("DDIM"));
    karras["use_karras_sigmas"] = json!("true");
    let refusal = convert(&karras, Call::Edit).unwrap_err();
    assert_eq!(refusal.field, "use_karras_sigmas");
}

/// A field that a table has and nobody reads would be taken in silence.
#[test]
fn every_field_of_the_tables_is_read_or_said_to_be_nothing() {
    for call in Call::ALL {
        for field in describe(call.tables()) {
            if field.effect == crate::Effect::Never {
                continue;
            }
            let mut body = if call == Call::Generation {
                json!({"prompt": "x"})
            } else {
                good()
            };
            // No field takes an object that holds a list.
            body[field.name] = json!({"x": [[]]});
            let refused = convert(&body, call);
            assert!(refused.is_err(), "{} of {}", field.name, call.name());
        }
    }
}
