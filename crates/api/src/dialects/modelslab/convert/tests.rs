//! Every field of the calls: what is taken, what it becomes, and what is refused how.

use serde_json::{Value, json};

use super::super::fields::{ALL, MASK};
use super::*;
use crate::dialects::field::{describe, names};
use crate::dialects::json::parse_object;

const RANDOM: u64 = 77;

fn good() -> Value {
    json!({"key": "k", "model_id": "demo", "prompt": "a house", "init_image": "AAAA", "mask_image": "AAAA"})
}

fn convert(body: &Value, call: Call) -> Result<ParsedCall, Vec<FieldError>> {
    let fields = parse_object(body.to_string().as_bytes(), &names(ALL)).expect("the tests write valid JSON");
    let defaults = Defaults {
        model: Some("first".to_owned()),
        seed: RANDOM,
        enhance_prompt: true,
        has_cluster: false,
    };
    to_call(fields, call, defaults)
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn accepted(field: &str, value: Value) -> ParsedCall {
    convert(&with(field, value.clone()), Call::Inpaint).unwrap_or_else(|e| panic!("{field} = {value}: {e:?}"))
}

fn refused(field: &str, value: Value) -> FieldError {
    match convert(&with(field, value.clone()), Call::Inpaint) {
        Ok(_) => panic!("{field} = {value} was accepted"),
        Err(mut refusals) => {
            assert_eq!(refusals.len(), 1, "{refusals:?}");
            refusals.remove(0)
        }
    }
}

#[test]
fn a_minimal_body_gets_the_documented_defaults() {
    let call = convert(&good(), Call::Img2Img).unwrap();
    let request = &call.recipe;
    assert_eq!(call.inputs.mask(), None);
    assert_eq!(
        (request.model.as_str(), request.prompt.as_str()),
        ("demo", "a house")
    );
    assert_eq!(
        (request.image_count, request.steps, request.clip_skip),
        (1, 21, 1)
    );
    assert_eq!(
        (request.guidance_scale, request.strength, request.seed),
        (7.5, 0.7, RANDOM)
    );
    assert_eq!(request.scheduler.kind, None);
    assert_eq!(request.scheduler.strength_rule, StrengthRule::FewerSteps);
    assert_eq!(request.scheduler.spacing, NoiseSpacing::Karras);
    let usual = Size {
        width: 512,
        height: 512,
    };
    assert_eq!(call.fit, Fit::Open(Some(usual)));
    assert_eq!((call.note.warning, call.enhance_prompt), (None, true));
    assert_eq!(
        call.delivery.safety,
        SafetyPolicy::On {
            action: SafetyAction::SensitiveContentText,
            level: SafetyLevel::Explicit,
        }
    );
    assert_eq!(call.note.meta["seed"], RANDOM);
}

#[test]
fn null_and_nothing_mean_the_default_for_all_but_three() {
    let mut body = good();
    for field in names(ALL) {
        if !["prompt", "init_image", "mask_image", "model_id"].contains(&field) {
            body[field] = Value::Null;
        }
    }
    let nulls = convert(&body, Call::Inpaint).unwrap();
    let plain = convert(&good(), Call::Inpaint).unwrap();
    assert_eq!((&nulls.recipe, &nulls.note), (&plain.recipe, &plain.note));
    assert_eq!((&nulls.inputs, &nulls.delivery), (&plain.inputs, &plain.delivery));
    let no_model = convert(&with("model_id", Value::Null), Call::Img2Img).unwrap();
    assert_eq!(no_model.recipe.model.as_str(), "first");
}

#[test]
fn all_complaints_come_at_once() {
    let refusals = convert(&json!({"samples": 5, "strength": "much"}), Call::Inpaint).unwrap_err();
    let fields: Vec<&str> = refusals.iter().map(|refusal| refusal.field.as_str()).collect();
    assert_eq!(
        fields,
        ["prompt", "samples", "strength", "init_image", "mask_image"]
    );
}

#[test]
fn numbers_come_as_numbers_or_texts() {
    assert_eq!(accepted("samples", json!("4")).recipe.image_count, 4);
    assert_eq!(accepted("num_inference_steps", json!("31")).recipe.steps, 31);
    assert_eq!(accepted("steps", json!(20)).recipe.steps, 20);
    assert_eq!(accepted("guidance_scale", json!("7")).recipe.guidance_scale, 7.0);
    assert_eq!(accepted("strength", json!(1)).recipe.strength, 1.0);
    assert_eq!(accepted("clip_skip", json!("2")).recipe.clip_skip, 2);
    assert_eq!(
        accepted("seed", json!(2_916_174_600_u32)).recipe.seed,
        2_916_174_600
    );
    for random in [
        json!(null),
        json!(""),
        json!("null"),
        json!("None"),
        json!(-1),
        json!("-1"),
    ] {
        assert_eq!(accepted("seed", random).recipe.seed, RANDOM);
    }
    let size = |width, height| Fit::To(Size { width, height });
    assert_eq!(accepted("width", json!("384")).fit, size(384, 512));
    let odd = accepted("height", json!(509));
    assert_eq!(odd.fit, size(512, 512), "asked for, though it is the usual one");
    assert!(
        odd.note
            .warning
            .unwrap()
            .contains("height 509 was rounded to 512")
    );
}

#[test]
fn what_is_out_of_range_names_its_field() {
    for (field, values) in [
        ("samples", vec![json!(0), json!(5), json!("two"), json!(1.5)]),
        (
            "width",
            vec![
                json!(0),
                json!(-8),
                json!(1025),
                json!(65536),
                json!("wide"),
                json!([512]),
            ],
        ),
        ("height", vec![json!(63), json!(4096), json!(1e300)]),
        ("num_inference_steps", vec![json!(0), json!(151), json!(true)]),
        (
            "guidance_scale",
            vec![json!(-0.1), json!(20.5), json!("NaN"), json!("1e400")],
        ),
        ("strength", vec![json!(1.0001), json!(-0.5), json!("inf")]),
        ("seed", vec![json!(-2), json!("x"), json!(1.0e19)]),
        ("clip_skip", vec![json!(0), json!(9)]),
        ("safety_checker", vec![json!("maybe"), json!(2), json!([])]),
        ("tomesd", vec![json!("half"), json!(0.5), json!({})]),
        ("safety_checker_type", vec![json!("pink")]),
        ("algorithm_type", vec![json!("euler")]),
        ("scheduler", vec![json!("Nonsense"), json!(3)]),
        ("lora_strength", vec![json!("a"), json!(5), json!(true)]),
        ("lora_model", vec![json!("a,b,c,d,e,f"), json!("a,a")]),
        ("ip_adapter_id", vec![json!(7), json!([])]),
        (
            "ip_adapter_image",
            vec![json!("ftp://x/y.png"), json!("not base64!"), json!(7)],
        ),
        ("ip_adapter_scale", vec![json!(1.5)]),
        ("webhook", vec![json!("ftp://x"), json!("hello"), json!(7)]),
        ("track_id", vec![json!({}), json!("x".repeat(2000))]),
        ("prompt", vec![json!(7), json!("x".repeat(10_001))]),
        (
            "init_image",
            vec![
                json!("file:///etc/passwd"),
                json!("/srv/a.png"),
                json!("gopher://x"),
                json!(3),
            ],
        ),
        ("mask_image", vec![json!("ftp://x/y.png"), json!("not base64!")]),
    ] {
        for value in values {
            assert_eq!(refused(field, value.clone()).field, field, "{value}");
        }
    }
    let list = refused("scheduler", json!("Nonsense"));
    assert!(
        list.message.contains("KarrasVeScheduler") && list.message.contains("Nonsense"),
        "{list}"
    );
}

#[test]
fn flags_come_in_all_spellings() {
    for (value, expected) in [
        (json!("yes"), "yes"),
        (json!("NO"), "no"),
        (json!(false), "no"),
        (json!("true"), "yes"),
        (json!(0), "no"),
        (json!(""), "yes"),
        (json!(null), "yes"),
    ] {
        assert_eq!(
            accepted("safety_checker", value).note.meta["safety_checker"],
            expected
        );
    }
    let quiet = json!({"safety_checker": "no", "enhance_prompt": false, "tomesd": "no", "base64": true,
        "prompt": "x", "init_image": "AAAA", "temp": "yes"});
    let call = convert(&quiet, Call::Img2Img).unwrap();
    assert_eq!((call.note.warning, call.delivery.base64), (None, true));
    assert!(!call.enhance_prompt);
    assert_eq!(call.note.meta["temp"], "yes");
}

#[test]
fn the_operator_chooses_for_calls_that_say_nothing_about_their_prompts() {
    let enhanced = |body: &Value, enhance_prompt: bool| {
        let fields = parse_object(body.to_string().as_bytes(), &names(ALL)).unwrap();
        let defaults = Defaults {
            model: None,
            seed: RANDOM,
            enhance_prompt,
            has_cluster: false,
        };
        let call = to_call(fields, Call::Inpaint, defaults).unwrap();
        assert_eq!(call.note.meta["enhance_prompt"], yes_no(call.enhance_prompt));
        call.enhance_prompt
    };
    for default in [true, false] {
        assert_eq!(enhanced(&good(), default), default);
        assert_eq!(enhanced(&with("enhance_prompt", json!("")), default), default);
        assert!(enhanced(&with("enhance_prompt", json!("yes")), default));
        assert!(!enhanced(&with("enhance_prompt", json!("no")), default));
    }
    let refused = refused("enhance_prompt", json!("maybe"));
    assert_eq!(refused.field, "enhance_prompt");
}

#[test]
fn a_load_balancer_is_a_matter_of_a_cluster() {
    let call = |value: Value, has_cluster: bool| {
        let body = with("loadbalancer", value);
        let fields = parse_object(body.to_string().as_bytes(), &names(ALL)).unwrap();
        let defaults = Defaults {
            model: None,
            seed: RANDOM,
            enhance_prompt: true,
            has_cluster,
        };
        let call = to_call(fields, Call::Inpaint, defaults).unwrap();
        (call.stays, call.note.warning)
    };
    for (value, stays) in [("yes", false), ("no", true), ("", false)] {
        assert_eq!(call(json!(value), true), (stays, None), "{value}");
    }
    let alone = call(json!("yes"), false).1.unwrap();
    assert!(alone.starts_with("loadbalancer has no effect"), "{alone}");
    assert_eq!(call(json!("no"), false), (true, None));
    assert_eq!(refused("loadbalancer", json!("two")).field, "loadbalancer");
}

#[test]
fn each_type_of_the_safety_checker_has_its_action() {
    for (word, action) in [
        (
            json!("sensitive_content_text"),
            SafetyAction::SensitiveContentText,
        ),
        (json!(""), SafetyAction::SensitiveContentText),
        (json!("Blur"), SafetyAction::Blur),
        (json!("pixelate"), SafetyAction::Pixelate),
        (json!("BLACK"), SafetyAction::Black),
    ] {
        let level = SafetyLevel::Explicit;
        let given = accepted("safety_checker_type", word.clone()).delivery.safety;
        assert_eq!(given, SafetyPolicy::On { action, level }, "{word}");
    }
    let off = accepted("safety_checker", json!("no")).delivery.safety;
    assert_eq!(off, SafetyPolicy::Off);
}

#[test]
fn token_merging_is_on_unless_a_client_says_no() {
    let absent = convert(&good(), Call::Inpaint).unwrap();
    let answers = [
        (absent, true),
        (accepted("tomesd", json!(null)), true),
        (accepted("tomesd", json!("yes")), true),
        (accepted("tomesd", json!(true)), true),
        (accepted("tomesd", json!("no")), false),
        (accepted("tomesd", json!(0)), false),
    ];
    for (call, expected) in answers {
        assert_eq!(call.recipe.token_merging, expected);
        assert_eq!(call.note.meta["tomesd"], if expected { "yes" } else { "no" });
        assert_eq!(call.note.warning, None);
    }
    let refusal = refused("tomesd", json!("half"));
    assert_eq!(
        (refusal.field.as_str(), refusal.message.as_str()),
        ("tomesd", "tomesd must be yes or no")
    );
}

#[test]
fn schedulers_in_any_case_and_karras_where_it_means_something() {
    let mut body = good();
    body["scheduler"] = json!("unipcmultistepscheduler");
    body["use_karras_sigmas"] = json!("yes");
    let call = convert(&body, Call::Img2Img).unwrap();
    assert_eq!(call.recipe.scheduler.kind, Some(SchedulerKind::UniPCMultistep));
    assert_eq!(call.recipe.scheduler.spacing, NoiseSpacing::Karras);
    assert_eq!(call.note.warning, None);

    body["scheduler"] = json!("DDIMScheduler");
    let call = convert(&body, Call::Img2Img).unwrap();
    assert_eq!(call.recipe.scheduler.spacing, NoiseSpacing::Checkpoint);
    assert!(
        call.note
            .warning
            .unwrap()
            .contains("use_karras_sigmas has no meaning for DDIMScheduler")
    );
    assert_eq!(call.note.meta["use_karras_sigmas"], "no");

    for (name, expected) in [
        ("dpmsolver+++", AlgorithmType::DpmSolverPlusPlus),
        ("dpmsolver++", AlgorithmType::DpmSolverPlusPlus),
        ("SDE-DPMSolver++", AlgorithmType::SdeDpmSolverPlusPlus),
        ("dpmsolver", AlgorithmType::DpmSolver),
    ] {
        assert_eq!(
            accepted("algorithm_type", json!(name)).recipe.scheduler.algorithm,
            Some(expected)
        );
    }
    assert_eq!(
        accepted("algorithm_type", json!("none"))
            .recipe
            .scheduler
            .algorithm,
        None
    );
}

#[test]
fn adapters_are_lists_with_commas() {
    let mut body = good();
    body["lora_model"] = json!("contrast-fix, yae-miko-genshin,none");
    body["lora_strength"] = json!("0.5");
    body["embeddings_model"] = json!("easy,bad");
    body["vae"] = json!("None");
    let request = convert(&body, Call::Img2Img).unwrap().recipe;
    let loras: Vec<(&str, f64)> = request
        .loras
        .iter()
        .map(|lora| (lora.model.as_str(), lora.strength))
        .collect();
    assert_eq!(loras, [("contrast-fix", 0.5), ("yae-miko-genshin", 0.5)]);
    assert_eq!((request.embeddings.len(), request.vae), (2, None));
    body["lora_strength"] = json!("0.5,0.25");
    let request = convert(&body, Call::Img2Img).unwrap().recipe;
    assert_eq!(request.loras[1].strength, 0.25);
    body["lora_strength"] = json!("0.5,0.25,1");
    assert_eq!(
        convert(&body, Call::Img2Img).unwrap_err()[0].field,
        "lora_strength"
    );
    body["lora_strength"] = json!(0.7);
    assert_eq!(
        convert(&body, Call::Img2Img).unwrap().recipe.loras[1].strength,
        0.7
    );
}

#[test]
fn strengths_without_models_are_no_fault() {
    for strengths in [json!("0.5,0.6"), json!([0.5, 0.6, 0.7]), json!(0.5), json!(false)] {
        let recipe = accepted("lora_strength", strengths).recipe;
        assert!(recipe.loras.is_empty());
    }
}

#[test]
fn a_weight_without_what_it_weighs_is_warned_of_unless_it_is_the_default() {
    for (field, chosen, missing) in [
        ("lora_strength", json!("0.5,1"), "lora_model"),
        ("lora_strength", json!(0), "lora_model"),
        ("ip_adapter_scale", json!(0.3), "ip_adapter_id"),
    ] {
        let warning = accepted(field, chosen.clone()).note.warning.unwrap_or_default();
        let wanted = format!("{field} has no effect without {missing}.");
        assert!(warning.contains(&wanted), "{chosen}: {warning}");
        for unchosen in [json!(1), json!("1.0"), json!(null)] {
            let warning = accepted(field, unchosen).note.warning.unwrap_or_default();
            assert!(!warning.contains(field), "{warning}");
        }
    }
}

#[test]
fn false_and_zero_mean_that_an_optional_text_was_not_given() {
    let plain = convert(&good(), Call::Inpaint).unwrap();
    for nothing in [json!(false), json!(0), json!(0.0)] {
        for field in [
            "negative_prompt",
            "model_id",
            "vae",
            "lora_model",
            "embeddings_model",
            "scheduler",
            "algorithm_type",
            "safety_checker_type",
            "ip_adapter_id",
            "ip_adapter_image",
            "webhook",
        ] {
            let mut expected = plain.clone();
            if field == "model_id" {
                expected.recipe.model = ModelId::new("first");
                expected.note.meta["model_id"] = json!("first");
            }
            let call = accepted(field, nothing.clone());
            assert_eq!(
                (call.recipe, call.note, call.delivery),
                (expected.recipe, expected.note, expected.delivery),
                "{field} {nothing}"
            );
        }
        for field in ["prompt", "init_image", "mask_image"] {
            assert!(refused(field, nothing.clone()).message.contains("is required"));
        }
    }
    // In a form everything is a text; a prompt may really be one of these.
    for nothing in ["false", "0"] {
        for field in ["vae", "lora_model", "scheduler", "webhook", "ip_adapter_image"] {
            assert_eq!(
                accepted(field, json!(nothing)).recipe,
                plain.recipe,
                "{field} {nothing}"
            );
        }
        assert_eq!(
            accepted("negative_prompt", json!(nothing)).recipe.negative_text(),
            nothing
        );
    }
    assert_eq!(accepted("track_id", json!(false)).note.track_id, Value::Null);
    assert_eq!(accepted("track_id", json!(0)).note.track_id, json!(0));
    assert!(refused("vae", json!(true)).message.contains("a string"));
}

#[test]
fn an_ip_adapter_and_its_image_go_together() {
    let both = |adapter: Value, scale: Value, image: Value| {
        let mut body = good();
        for (field, value) in [
            ("ip_adapter_id", adapter),
            ("ip_adapter_scale", scale),
            ("ip_adapter_image", image),
        ] {
            body[field] = value;
        }
        convert(&body, Call::Img2Img)
    };
    let url = "https://example.com/style.png";
    let call = both(json!("ip-adapter_sd15"), json!("0.4"), json!(url)).unwrap();
    let adapter = call.recipe.ip_adapter.as_ref().unwrap();
    assert_eq!((adapter.model.as_str(), adapter.scale), ("ip-adapter_sd15", 0.4));
    assert_eq!(call.inputs.ip_adapter(), Some(&ImageSource::Url(url.to_owned())));
    assert_eq!(call.note.meta["ip_adapter_id"], "ip-adapter_sd15");
    assert_eq!(call.note.meta["ip_adapter_scale"], 0.4);
    assert_eq!(call.note.meta["ip_adapter_image"], url);
    let warning = call.note.warning.unwrap_or_default();
    assert!(!warning.contains("ip_adapter"), "{warning}");
    let inline = both(json!("x"), Value::Null, json!("data:image/png;base64,AAAA")).unwrap();
    assert_eq!(inline.recipe.ip_adapter.unwrap().scale, 1.0);
    assert_eq!(inline.note.meta["ip_adapter_image"], "base64");
    for (adapter, image, field) in [
        (json!("ip-adapter_sd15"), Value::Null, "ip_adapter_image"),
        (json!("ip-adapter_sd15"), json!("null"), "ip_adapter_image"),
        (Value::Null, json!(url), "ip_adapter_id"),
    ] {
        let errors = both(adapter, Value::Null, image).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].field, field);
        assert!(
            errors[0].message.contains("is required with ip_adapter_"),
            "{errors:?}"
        );
    }
    // A scale without an adapter has nothing to count.
    let alone = both(Value::Null, json!(0.5), Value::Null).unwrap();
    assert_eq!(alone.recipe.ip_adapter, None);
    assert_eq!(alone.note.meta["ip_adapter_id"], Value::Null);
}

#[test]
fn images_are_addresses_or_base64() {
    let url = "https://example.com/a.jpg?x=1";
    let call = accepted("init_image", json!(format!(" {url} ")));
    assert_eq!(call.inputs.init(), Some(&ImageSource::Url(url.to_owned())));
    assert_eq!(call.note.meta["init_image"], url);
    let first = accepted("init_image", json!([url, "x"]));
    assert_eq!(first.inputs.init(), Some(&ImageSource::Url(url.to_owned())));
    let inline = accepted("init_image", json!("data:image/png;base64,AAAA"));
    assert!(matches!(inline.inputs.init(), Some(ImageSource::Inline(_))));
    assert_eq!(inline.note.meta["init_image"], "base64");
    assert!(matches!(inline.inputs.mask(), Some(ImageSource::Inline(_))));
    assert_eq!(inline.recipe.soft_edge, 0);
    assert_eq!(accepted("soft_edge", json!("12")).recipe.soft_edge, 12);
    assert!(refused("soft_edge", json!(257)).message.contains("256"));
    assert!(!inline.recipe.differential_diffusion);
    let by_grey = accepted("differential_diffusion", json!("yes"));
    assert!(by_grey.recipe.differential_diffusion);
    assert_eq!(by_grey.note.meta["differential_diffusion"], "yes");
    assert!(
        refused("differential_diffusion", json!("rather"))
            .message
            .contains("yes")
    );
    for missing in [json!(""), json!(null), json!("  "), json!("null"), json!([])] {
        assert!(refused("init_image", missing).message.contains("is required"));
    }
}

#[test]
fn the_note_comes_back_as_it_was() {
    let mut body = good();
    body["track_id"] = json!(12);
    body["webhook"] = json!("https://example.com/hook");
    let call = convert(&body, Call::Img2Img).unwrap();
    assert_eq!(call.delivery.webhook.as_deref(), Some("https://example.com/hook"));
    let note = call.note;
    assert_eq!(note.track_id, json!(12));
    assert_eq!(serde_json::from_str::<Note>(&note.to_text()).unwrap(), note);
}

#[test]
fn the_ranges_of_the_table_are_those_that_are_kept() {
    let numbers = describe(&[GENERATION, MASK])
        .into_iter()
        .filter(|field| field.minimum.is_some());
    for field in numbers {
        let (low, high) = (field.minimum.unwrap(), field.maximum.unwrap());
        for name in std::iter::once(&field.name).chain(field.aliases) {
            accepted(name, json!(low));
            accepted(name, json!(high));
            for beyond in [low - 1.0, high + 2.0] {
                let message = refused(name, json!(beyond)).message;
                assert!(message.contains(&format!("[{low}, {high}]")), "{message}");
            }
        }
    }
}
