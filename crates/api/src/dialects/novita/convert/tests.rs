//! Every field of the call: what is taken, what it becomes, and what is refused how.

use serde_json::{Value, json};

use super::super::fields::BODY;
use super::*;
use crate::dialects::field::describe;
use crate::dialects::lenient::FieldErrorReason;

const RANDOM: u64 = 77;

fn good() -> Value {
    json!({"model_name": "demo", "input_image": "AAAA", "prompt": "a house"})
}

fn convert(body: &Value) -> Result<ParsedCall, FieldError> {
    let body = LcmImg2ImgBody::parse(body.to_string().as_bytes()).expect("the tests write valid JSON");
    to_call(body, RANDOM)
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn accepted(field: &str, value: Value) -> ParsedCall {
    convert(&with(field, value.clone())).unwrap_or_else(|e| panic!("{field} = {value}: {e}"))
}

fn refused(field: &str, value: Value) -> FieldError {
    match convert(&with(field, value.clone())) {
        Ok(_) => panic!("{field} = {value} was accepted"),
        Err(refusal) => refusal,
    }
}

#[test]
fn a_minimal_body_gets_the_defaults() {
    let converted = convert(&good()).unwrap();
    let request = converted.recipe;
    assert_eq!(converted.inputs.mask(), None);
    assert_eq!(
        (request.model.as_str(), request.prompt.as_str()),
        ("demo", "a house")
    );
    assert_eq!(request.negative_prompt, None);
    assert_eq!((request.image_count, request.steps, request.clip_skip), (1, 8, 1));
    assert_eq!(
        (request.guidance_scale, request.strength, request.seed),
        (0.0, 0.5, RANDOM)
    );
    assert_eq!(request.scheduler.kind, Some(SchedulerKind::LCM));
    assert_eq!(request.scheduler.strength_rule, StrengthRule::LowerStart);
    assert_eq!(converted.delivery.format, ImageFormat::Png);
    assert_eq!(
        converted.inputs.init(),
        Some(&ImageSource::Inline(bytes::Bytes::from_static(&[0, 0, 0])))
    );
    assert_eq!(
        (request.vae, request.loras.len(), request.embeddings.len()),
        (None, 0, 0)
    );
    assert!(converted.ignored.is_empty());
}

#[test]
fn null_means_the_default_for_all_but_the_three() {
    let mut body = good();
    for field in names(&[BODY]) {
        if !["model_name", "input_image", "prompt"].contains(&field) {
            body[field] = Value::Null;
        }
    }
    assert_eq!(convert(&body).unwrap(), convert(&good()).unwrap());
    for field in ["model_name", "input_image", "prompt"] {
        let mut absent = good();
        absent.as_object_mut().unwrap().remove(field);
        for refusal in [refused(field, Value::Null), convert(&absent).unwrap_err()] {
            assert_eq!(refusal.field, field);
            assert!(refusal.message.contains("is required"), "{refusal}");
        }
    }
}

#[test]
fn the_seeds_own_example_is_accepted() {
    let body = json!({
        "model_name": "dreamshaper_8_93211.safetensors", "input_image": "AAAA",
        "prompt": "beautilful sunflower, sun", "negative_prompt": "",
        "sd_vae": "vae-ft-mse-840000-ema-pruned.safetensors",
        "loras": [{"model_name": "more_details_59655", "strenth": 0.5}, {"model_name": "Gothpunk_30978", "strenth": 0.5}],
        "embeddings": [{"model_name": "AS-YoungV2"}, {"model_name": "MidAged"}],
        "image_num": 1, "steps": 3, "seed": 123, "clip_skip": 1, "guidance_scale": 0
    });
    let converted = convert(&body).unwrap();
    let request = converted.recipe;
    assert_eq!(
        (request.steps, request.seed, request.guidance_scale),
        (3, 123, 0.0)
    );
    assert_eq!(
        request.vae,
        Some(ModelId::new("vae-ft-mse-840000-ema-pruned.safetensors"))
    );
    assert_eq!(
        request.loras[1],
        LoraRef {
            model: ModelId::new("Gothpunk_30978"),
            strength: 0.5
        }
    );
    assert_eq!(
        request.embeddings[0],
        EmbeddingRef {
            model: ModelId::new("AS-YoungV2")
        }
    );
    assert!(converted.ignored.is_empty());
}

#[test]
fn whole_numbers_keep_their_ranges() {
    for (field, low, high) in [("image_num", 1, 16), ("steps", 1, 8), ("clip_skip", 1, 12)] {
        for good in [
            json!(low),
            json!(high),
            json!(high.to_string()),
            json!(f64::from(low)),
            json!(""),
        ] {
            accepted(field, good);
        }
        for bad in [
            json!(low - 1),
            json!(high + 1),
            json!(-1),
            json!(1.5),
            json!("x"),
            json!(true),
            json!([1]),
            json!({}),
        ] {
            let refusal = refused(field, bad);
            assert_eq!(
                (refusal.field.as_str(), refusal.reason),
                (field, FieldErrorReason::Value)
            );
            assert!(refusal.message.contains(&format!("[{low}, {high}]")), "{refusal}");
        }
    }
    assert_eq!(accepted("steps", json!("3")).recipe.steps, 3);
    assert_eq!(accepted("image_num", json!("16")).recipe.image_count, 16);
}

#[test]
fn numbers_keep_their_ranges() {
    for good in [json!(0), json!(1), json!(0.25), json!("0.25"), json!(-0.0)] {
        accepted("strength", good);
    }
    for bad in [
        json!(1.0001),
        json!(-0.01),
        json!(1e300),
        json!("NaN"),
        json!("Infinity"),
        json!("1e400"),
        json!(false),
    ] {
        assert_eq!(refused("strength", bad).field, "strength");
    }
    for good in [json!(0), json!(3), json!(14), json!("1.5")] {
        accepted("guidance_scale", good);
    }
    for bad in [json!(-1), json!(14.5)] {
        assert_eq!(refused("guidance_scale", bad).field, "guidance_scale");
    }
}

#[test]
fn seeds_are_exact_or_random_or_refused() {
    for (value, seed) in [
        (json!(0), 0),
        (json!(4_294_967_296_u64), 4_294_967_296),
        (json!(9_007_199_254_740_992_u64), 9_007_199_254_740_992),
        (json!("123"), 123),
        (json!(-1), RANDOM),
        (json!("-1"), RANDOM),
        (json!(""), RANDOM),
        (Value::Null, RANDOM),
    ] {
        assert_eq!(accepted("seed", value).recipe.seed, seed);
    }
    let beyond = [
        json!(-2),
        json!(9_007_199_254_740_993_u64),
        json!(9_223_372_036_854_775_808_u64),
        json!(u64::MAX),
    ];
    for bad in beyond.into_iter().chain([
        json!(1e19),
        json!(1.5),
        json!("abc"),
        json!("18446744073709551616"),
    ]) {
        assert_eq!(refused("seed", bad).field, "seed");
    }
}

#[test]
fn prompts_count_characters() {
    for good in [
        "x".repeat(1024),
        "é".repeat(1024),
        "👩‍👩‍👧".to_owned(),
        "((((".to_owned(),
        "\u{0}".to_owned(),
        " ".to_owned(),
    ] {
        assert_eq!(accepted("prompt", json!(good)).recipe.prompt, good);
    }
    for bad in [
        json!("é".repeat(1025)),
        json!("x".repeat(100_000)),
        json!(""),
        json!(1),
        json!(["a"]),
    ] {
        assert_eq!(refused("prompt", bad).field, "prompt");
    }
    // An empty text is a text: some checkpoints know it from none.
    let negative = |value| accepted("negative_prompt", value).recipe.negative_prompt;
    assert_eq!(negative(json!("")).as_deref(), Some(""));
    assert_eq!(negative(json!(null)), None);
    assert_eq!(
        refused("negative_prompt", json!("x".repeat(1025))).field,
        "negative_prompt"
    );
}

#[test]
fn loras_in_both_spellings_and_as_strings() {
    let strength = |lora: Value| accepted("loras", json!([lora])).recipe.loras[0].strength;
    assert_eq!(strength(json!({"model_name": "a"})), 1.0);
    assert_eq!(strength(json!({"model_name": "a", "strenth": 0.5})), 0.5);
    assert_eq!(strength(json!({"model_name": "a", "strength": "0.25"})), 0.25);
    assert_eq!(
        strength(json!({"model_name": "a", "strength": 0.25, "strenth": 0.5})),
        0.25
    );
    assert_eq!(
        strength(json!({"model_name": "a", "strength": null, "strenth": -1})),
        -1.0
    );
    let six: Vec<Value> = (0..6).map(|i| json!({"model_name": i.to_string()})).collect();
    assert_eq!(accepted("loras", json!(six[..5])).recipe.loras.len(), 5);
    for (bad, field) in [
        (json!(six), "loras"),
        (json!({"model_name": "a"}), "loras"),
        (json!([null]), "loras[0]"),
        (json!(["a"]), "loras[0]"),
        (json!([{"strength": 1}]), "loras[0].model_name"),
        (json!([{"model_name": ""}]), "loras[0].model_name"),
        (
            json!([{"model_name": "a"}, {"model_name": "a"}]),
            "loras[1].model_name",
        ),
        (json!([{"model_name": "a", "strenth": "NaN"}]), "loras[0].strenth"),
        (json!([{"model_name": "a", "strength": 1e9}]), "loras[0].strength"),
    ] {
        assert_eq!(refused("loras", bad).field, field);
    }
    assert_eq!(refused("embeddings", json!(six)).field, "embeddings");
    assert_eq!(
        refused("embeddings", json!([{}])).field,
        "embeddings[0].model_name"
    );
}

#[test]
fn the_models_own_vae_has_many_names() {
    for own in [
        json!(""),
        json!(" "),
        json!("Automatic"),
        json!("none"),
        json!("None"),
        Value::Null,
    ] {
        assert_eq!(accepted("sd_vae", own).recipe.vae, None);
    }
}

#[test]
fn the_format_is_chosen_in_extra() {
    let format = |extra: Value| accepted("extra", extra).delivery.format;
    assert_eq!(format(json!({"response_image_type": "webp"})), ImageFormat::Webp);
    assert_eq!(format(json!({"response_image_type": "JPG"})), ImageFormat::Jpeg);
    assert_eq!(format(json!({"responseImageType": "jpeg"})), ImageFormat::Jpeg);
    assert_eq!(format(json!({"response_image_type": ""})), ImageFormat::Png);
    assert_eq!(
        format(json!({"enterprise_plan": {"enabled": false}})),
        ImageFormat::Png
    );
    assert_eq!(
        refused("extra", json!({"response_image_type": "gif"})).field,
        "extra.response_image_type"
    );
    assert_eq!(refused("extra", json!("png")).field, "extra");
}

#[test]
fn the_safety_checker_is_asked_for_in_extra() {
    let safety = |extra: Value| accepted("extra", extra).delivery.safety;
    let on = |level| SafetyPolicy::On {
        action: SafetyAction::Keep,
        level,
    };
    for wanted in [json!(true), json!("true"), json!(1), json!("1")] {
        let found = safety(json!({"enable_nsfw_detection": wanted}));
        assert_eq!(found, on(SafetyLevel::Explicit), "{wanted}");
    }
    for unwanted in [json!(false), json!("false"), json!(0), json!(""), json!(null)] {
        let found = safety(json!({"enable_nsfw_detection": unwanted, "nsfw_detection_level": 2}));
        assert_eq!(found, SafetyPolicy::Off, "{unwanted}");
    }
    for (given, level) in [
        (json!(0), SafetyLevel::Explicit),
        (json!("1"), SafetyLevel::Suggestive),
        (json!(2), SafetyLevel::Revealing),
        (json!(null), SafetyLevel::Explicit),
    ] {
        let found = safety(json!({"enableNsfwDetection": true, "nsfwDetectionLevel": given}));
        assert_eq!(found, on(level), "{given}");
    }
    for (field, value) in [
        ("nsfw_detection_level", json!(3)),
        ("nsfw_detection_level", json!(-1)),
        ("nsfw_detection_level", json!("much")),
        ("enable_nsfw_detection", json!("maybe")),
        ("enable_nsfw_detection", json!(2)),
        ("enable_nsfw_detection", json!([true])),
    ] {
        let place = format!("extra.{field}");
        let refusal = refused("extra", json!({field: value}));
        assert_eq!(refusal.field, place, "{value}");
        assert!(refusal.message.contains(&place), "{}", refusal.message);
    }
}

#[test]
fn unknown_fields_are_ignored_and_named() {
    let mut body = good();
    body["width"] = json!(512);
    body["extra"] = json!({"webhook": {}, "response_image_type": "png"});
    body["loras"] = json!([{"model_name": "a", "weight": 1}]);
    body["embeddings"] = json!([{"model_name": "b", "x": 1}]);
    let mut ignored = convert(&body).unwrap().ignored;
    ignored.sort();
    assert_eq!(
        ignored,
        ["embeddings[0].x", "extra.webhook", "loras[0].weight", "width"]
    );
}

#[test]
fn an_image_of_too_many_bytes_has_its_own_reason() {
    let refusal = refused(
        "input_image",
        json!("A".repeat(INPUT_IMAGE.kind.max_bytes * 4 / 3 + 8)),
    );
    assert_eq!(
        (refusal.field.as_str(), refusal.reason),
        ("input_image", FieldErrorReason::ImageBytes)
    );
    assert_eq!(
        refused("input_image", json!("%%%")).reason,
        FieldErrorReason::Image
    );
    assert_eq!(refused("input_image", json!("")).reason, FieldErrorReason::Image);
    assert_eq!(refused("input_image", json!(1)).reason, FieldErrorReason::Value);
}

#[test]
fn the_ranges_of_the_table_are_those_that_are_kept() {
    let numbers = describe(&[BODY])
        .into_iter()
        .filter(|field| field.minimum.is_some());
    for field in numbers {
        let (low, high) = (field.minimum.unwrap(), field.maximum.unwrap());
        accepted(field.name, json!(low));
        accepted(field.name, json!(high));
        for beyond in [low - 1.0, high + 2.0] {
            let message = refused(field.name, json!(beyond)).message;
            assert!(message.contains(&format!("[{low}, {high}]")), "{message}");
        }
    }
}
