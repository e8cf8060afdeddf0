//! What a body becomes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pentimento_types::{NoiseSpacing, SchedulerKind, StrengthRule, Task};

use super::*;

fn parse(call: Call, body: &Value, options: Options) -> Result<ParsedCall, FieldError> {
    let fields = call.parse(body.to_string().as_bytes()).unwrap();
    let catalog = Catalog::embedded_only();
    let defaults = Defaults {
        catalog: &catalog,
        options,
        seed: 77,
    };
    to_call(fields, call, defaults)
}

fn img2img(change: Value) -> Result<ParsedCall, FieldError> {
    let mut body = json!({"init_images": [STANDARD.encode("one")], "prompt": "a house"});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    parse(Call::Img2Img, &body, Options::default())
}

fn only(call: ParsedCall) -> Part {
    let [part] = <[Part; 1]>::try_from(call.parts).unwrap();
    part
}

#[test]
fn defaults_are_the_web_uis() {
    let call = img2img(json!({})).unwrap();
    assert!(call.send_images && !call.include_init_images && call.remember.is_none());
    let Part { recipe, inputs } = only(call);
    assert_eq!(inputs.task(), Task::ImageToImage);
    assert_eq!(
        (recipe.model.as_str(), recipe.seed, recipe.image_count),
        ("demo", 77, 1)
    );
    assert_eq!(
        (recipe.steps, recipe.guidance_scale, recipe.strength),
        (50, 7.0, 0.75)
    );
    assert_eq!(recipe.negative_prompt, None);
    assert_eq!(recipe.scheduler.kind, Some(SchedulerKind::EulerDiscrete));
    assert_eq!(recipe.scheduler.strength_rule, StrengthRule::OneStepMore);
    let framing = recipe.framing.unwrap();
    assert_eq!(framing.size.to_string(), "512x512");
    assert_eq!((framing.mask_blur, framing.only_masked), ([4, 4], Some(0)));
    assert_eq!(framing.masked_content, MaskedContent::Fill);
}

#[test]
fn several_images_are_jobs_of_one_image_each_with_seeds_that_go_on() {
    let files: Vec<String> = ["a", "b", "c"].iter().map(|file| STANDARD.encode(file)).collect();
    let call = img2img(json!({"init_images": files, "n_iter": 2, "seed": 10, "batch_size": 1})).unwrap();
    assert_eq!(call.batch_size, 3);
    let found: Vec<_> = call
        .parts
        .iter()
        .map(|part| {
            let Some(ImageSource::Inline(file)) = part.inputs.init() else {
                panic!("no file")
            };
            (part.recipe.seed, part.recipe.image_count, file.clone())
        })
        .collect();
    let expected = ["a", "b", "c", "a", "b", "c"];
    let expected: Vec<_> = (10..)
        .zip(expected)
        .map(|(seed, file)| (seed, 1, file.into()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_mask_with_its_fields_is_a_framing() {
    let mask = STANDARD.encode("mask");
    let call = img2img(json!({
        "mask": mask, "mask_blur": 7, "mask_blur_x": 1, "inpainting_fill": 1, "inpaint_full_res": 0,
        "inpainting_mask_invert": true, "resize_mode": 2, "width": 640, "height": "384",
    }));
    let Part { recipe, inputs } = only(call.unwrap());
    assert_eq!(inputs.task(), Task::Inpainting);
    assert_eq!(
        recipe.framing.unwrap(),
        Framing {
            size: Size {
                width: 640,
                height: 384
            },
            resize: ResizeMode::Fill,
            invert_mask: true,
            mask_blur: [7, 7],
            masked_content: MaskedContent::Original,
            only_masked: None,
        }
    );
    let two = img2img(json!({"mask": mask, "mask_blur_x": 1, "mask_blur_y": 2})).unwrap();
    assert_eq!(only(two).recipe.framing.unwrap().mask_blur, [1, 2]);
    assert_eq!(
        img2img(json!({"mask": mask, "inpainting_fill": 2}))
            .unwrap_err()
            .field,
        "inpainting_fill"
    );
    assert!(
        img2img(json!({"inpainting_fill": 2})).is_ok(),
        "without a mask it says nothing"
    );
}

#[test]
fn loras_come_out_of_the_prompt() {
    let call = img2img(json!({"prompt": "a house <lora:style:0.5>", "negative_prompt": "fog"})).unwrap();
    assert_eq!(call.prompt, "a house <lora:style:0.5>");
    let Part { recipe, .. } = only(call);
    assert_eq!(recipe.prompt, "a house ");
    assert_eq!(
        (recipe.loras[0].model.as_str(), recipe.loras[0].strength),
        ("style", 0.5)
    );
    assert_eq!(recipe.negative_prompt.as_deref(), Some("fog"));
}

#[test]
fn options_of_the_call_come_before_those_of_the_key() {
    let options = Options {
        clip_skip: Some(2),
        format: Some(ImageFormat::Webp),
        ..Options::default()
    };
    let body = json!({"override_settings": {
        "CLIP_stop_at_last_layers": 3, "sd_model_checkpoint": "demo.safetensors [0123456789]", "sd_vae": "None", "x": 1,
    }});
    let call = parse(Call::Txt2Img, &body, options).unwrap();
    assert_eq!(call.delivery.format, ImageFormat::Webp);
    assert_eq!(call.ignored, ["override_settings.x"]);
    let Part { recipe, inputs } = only(call);
    assert_eq!((recipe.clip_skip, inputs.task()), (3, Task::TextToImage));
    assert_eq!(recipe.vae, None);
    let kept = img2img(json!({
        "override_settings": {"samples_format": "jpg"}, "override_settings_restore_afterwards": false,
    }));
    assert_eq!(kept.unwrap().remember.unwrap().format, Some(ImageFormat::Jpeg));
    for (settings, field) in [
        (
            json!({"sd_model_checkpoint": "dmeo"}),
            "override_settings.sd_model_checkpoint",
        ),
        (json!({"sd_vae": "x"}), "override_settings.sd_vae"),
        (
            json!({"CLIP_stop_at_last_layers": 13}),
            "override_settings.CLIP_stop_at_last_layers",
        ),
        (
            json!({"samples_format": "gif"}),
            "override_settings.samples_format",
        ),
        (
            json!({"img2img_fix_steps": true}),
            "override_settings.img2img_fix_steps",
        ),
    ] {
        let refused = img2img(json!({"override_settings": settings})).unwrap_err();
        assert_eq!(refused.field, field, "{refused}");
        assert!(refused.message.starts_with(field), "{refused}");
    }
}

#[test]
fn the_reply_repeats_what_was_sent_but_no_images() {
    let call =
        img2img(json!({"mask": STANDARD.encode("mask"), "steps": 3, "styles": ["x"], "tiling": false}));
    let call = call.unwrap();
    let found = &call.parameters;
    assert_eq!(found["steps"], 3);
    assert_eq!(
        (&found["init_images"], &found["mask"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&found["cfg_scale"], &found["send_images"]),
        (&json!(7.0), &json!(true))
    );
    assert_eq!(
        call.warning.as_deref(),
        Some("No effect in this version: styles.")
    );
}

#[test]
fn samplers_are_named_as_there() {
    let karras = img2img(json!({"sampler_name": "DPM++ 2M", "scheduler": "karras", "eta": 1.0})).unwrap();
    let scheduler = only(karras).recipe.scheduler;
    assert_eq!(scheduler.spacing, NoiseSpacing::Karras);
    let by_index = img2img(json!({"sampler_name": null, "sampler_index": "Euler a"})).unwrap();
    let kind = only(by_index).recipe.scheduler.kind;
    assert_eq!(kind, Some(SchedulerKind::EulerAncestralDiscrete));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    for (change, field) in [
        (json!({"init_images": []}), "init_images"),
        (json!({"init_images": null}), "init_images"),
        (json!({"init_images": ["", "x"]}), "init_images[0]"),
        (json!({"width": 500}), "width"),
        (json!({"height": 2056}), "height"),
        (json!({"batch_size": 8, "n_iter": 3}), "n_iter"),
        (json!({"resize_mode": 3}), "resize_mode"),
        (json!({"tiling": true}), "tiling"),
        (json!({"subseed_strength": 0.3}), "subseed_strength"),
        (json!({"script_name": "x/y/z plot"}), "script_name"),
        (
            json!({"alwayson_scripts": {"ControlNet": {"args": []}}}),
            "alwayson_scripts",
        ),
        (json!({"s_churn": 2}), "s_churn"),
        (json!({"sampler_name": "DDIM", "eta": 1}), "eta"),
    ] {
        let refused = img2img(change.clone()).unwrap_err();
        assert_eq!(refused.field, field, "{change}: {refused}");
    }
    for change in [
        json!({"subseed_strength": 0.0, "alwayson_scripts": {}, "script_name": null, "restore_faces": false}),
        json!({"restore_faces": 0, "tiling": "false", "enable_hr": "off", "subseed_strength": "0", "s_churn": -0.0}),
        json!({"seed_resize_from_h": -1, "seed_resize_from_w": 0, "initial_noise_multiplier": 1.0}),
    ] {
        assert!(img2img(change.clone()).is_ok(), "{change}");
    }
}

#[test]
fn what_may_be_of_any_size_is_not_repeated() {
    let long = "x".repeat(100_000);
    let call = img2img(json!({"comments": long, "script_args": [long], "force_task_id": long})).unwrap();
    let size = Value::Object(call.parameters).to_string().len();
    assert!(size < 10_000, "{size}");
}
