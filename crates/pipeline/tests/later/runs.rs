//! Stable Diffusion 2 and SDXL: whole runs against diffusers' pipelines, with and without a mask.
//!
//! The files are made by `tests/golden/generate/later_models.py` on `tiny-sd2` and `tiny-sdxl` of `tests/golden/models`.

use crate::models::{changed, model_of, with_keys};
use crate::support::{image_of, request_of, tiny};
use candle_core::{DType, Device, Tensor};
use pentimento_pipeline::RequestConditioning;
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_runs};
use pentimento_types::{Recipe, RgbImage};

/// The text states, where the file holds them.
fn check_states(case: &str, golden: &Golden, found: &RequestConditioning) {
    assert_eq!(found.uncond.is_some(), golden.get("uncond").is_some(), "{case}");
    for (name, conditioning) in [("cond", Some(&found.cond)), ("uncond", found.uncond.as_ref())] {
        let Some(conditioning) = conditioning else {
            continue;
        };
        let states = Tensor::cat(&conditioning.token_states, 2).unwrap();
        assert_close(
            &format!("{case}: {name}"),
            &states,
            golden.tensor(name),
            Tolerance::CLIP,
        );
        let pooled = if name == "cond" { "pooled" } else { "uncond_pooled" };
        assert_eq!(
            conditioning.pooled.is_some(),
            golden.get(pooled).is_some(),
            "{case}"
        );
        if let Some(found) = &conditioning.pooled {
            assert_close(
                &format!("{case}: {pooled}"),
                found,
                golden.tensor(pooled),
                Tolerance::CLIP,
            );
        }
    }
}

fn check(case: &str) {
    let golden = Golden::open(&format!("later/{case}.safetensors"));
    let request = request_of(golden.about());
    let model = model_of(&golden);
    let init = image_of(golden.tensor("input.u8"));
    let mask = golden.get("mask.u8").map(image_of);
    if golden.get("cond").is_some() {
        check_states(case, &golden, &model.encode_prompts(&request, &[]).unwrap());
    }
    let states = match &mask {
        Some(mask) => model.prepare_inpaint(&request, &init, mask),
        None => model.prepare(&request, &init),
    };
    let mut state = states.unwrap().remove(0);
    let close = |name: &str, found: &[f32]| {
        let expected: Vec<f32> = golden.values(name);
        assert_values_close(
            &format!("{case}: {name}"),
            found,
            &expected,
            Tolerance::TRAJECTORY,
        );
    };
    close("start", state.latents().values());
    let mut step = 0;
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        close(&format!("step.{step}"), state.latents().values());
        step += 1;
    }
    assert!(
        golden.get(&format!("step.{step}")).is_none(),
        "{case}: diffusers runs more than {step} steps"
    );
    let found = model.finish(state).unwrap();
    // diffusers leaves it to its user to put the kept pixels back, and so they are not compared.
    let painted = mask.map(|mask| mask.pixels().chunks_exact(3).map(grey).collect::<Vec<_>>());
    let levels = |image: &RgbImage| {
        let pixels = image.pixels().chunks_exact(3).enumerate();
        let compared =
            pixels.filter(|(number, _)| painted.as_ref().is_none_or(|painted| painted[*number] >= 128));
        let levels: Vec<u8> = compared.flat_map(|(_, pixel)| pixel.to_vec()).collect();
        Tensor::new(levels, &Device::Cpu)
            .unwrap()
            .to_dtype(DType::U8)
            .unwrap()
    };
    let expected = levels(&image_of(golden.tensor("output.u8")));
    assert_close(
        &format!("{case}: image"),
        &levels(&found),
        &expected,
        Tolerance::PICTURE,
    );
}

/// As PIL's `convert("L")`.
fn grey(pixel: &[u8]) -> u32 {
    (u32::from(pixel[0]) * 19595 + u32::from(pixel[1]) * 38470 + u32::from(pixel[2]) * 7471 + 0x8000) >> 16
}

golden_runs! {
    "later", check;
    sd2_ddim_guided => "sd2-ddim-guided",
    sd2_euler_skip => "sd2-euler-skip",
    sd2_unipc => "sd2-unipc",
    sd2_ancestral => "sd2-ancestral",
    sd2_blend => "sd2-blend",
    sdxl_euler_guided => "sdxl-euler-guided",
    sdxl_no_negative => "sdxl-no-negative",
    sdxl_empty_negative => "sdxl-empty-negative",
    sdxl_skip => "sdxl-skip",
    sdxl_unguided => "sdxl-unguided",
    sdxl_normalised => "sdxl-normalised",
    sdxl_distilled => "sdxl-distilled",
    sdxl_blend => "sdxl-blend",
    sdxl_blend_full => "sdxl-blend-full",
    sdxl_nine => "sdxl-nine",
    sdxl_nine_full => "sdxl-nine-full",
}

/// Zeros stand for no negative prompt only where the folder says so; an empty one is a text.
#[test]
fn no_negative_prompt_is_an_empty_one_where_the_folder_says_so() {
    let golden = Golden::open("later/sdxl-no-negative.safetensors");
    let uncond = |force_zeros: bool, negative_prompt: Option<&str>| {
        let model = changed("tiny-sdxl", move |path, bytes| match path {
            "model_index.json" => with_keys(
                &bytes,
                &serde_json::json!({"force_zeros_for_empty_prompt": force_zeros}),
            ),
            _ => bytes,
        });
        let recipe = Recipe {
            negative_prompt: negative_prompt.map(str::to_owned),
            ..request_of(golden.about())
        };
        let found = model
            .unwrap()
            .encode_prompts(&recipe, &[])
            .unwrap()
            .uncond
            .unwrap();
        let states = Tensor::cat(&found.token_states, 2)
            .unwrap()
            .flatten_all()
            .unwrap();
        states.to_vec1::<f32>().unwrap()
    };
    let zeros = uncond(true, None);
    assert!(zeros.iter().all(|value| *value == 0.0));
    let empty = uncond(true, Some(""));
    assert!(empty.iter().any(|value| *value != 0.0));
    assert_eq!(uncond(false, None), empty);
}

/// With one text encoder the two are one thing.
#[test]
fn an_ordinary_model_takes_no_negative_prompt_for_an_empty_one() {
    let golden = Golden::open("later/sdxl-no-negative.safetensors");
    let model = tiny("tiny");
    let uncond = |negative_prompt: Option<&str>| {
        let recipe = Recipe {
            negative_prompt: negative_prompt.map(str::to_owned),
            ..request_of(golden.about())
        };
        let found = model.encode_prompts(&recipe, &[]).unwrap().uncond.unwrap();
        found.token_states[0]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    assert_eq!(uncond(None), uncond(Some("")));
    assert_ne!(uncond(None), uncond(Some("fog")));
}

#[test]
fn images_of_sdxl_do_not_meet() {
    let golden = Golden::open("later/sdxl-euler-guided.safetensors");
    let model = model_of(&golden);
    let init = image_of(golden.tensor("input.u8"));
    let start = |seed: u64, guidance_scale: f64, negative: Option<&str>| {
        let recipe = Recipe {
            seed,
            guidance_scale,
            negative_prompt: negative.map(str::to_owned),
            ..request_of(golden.about())
        };
        model.prepare(&recipe, &init).unwrap().remove(0)
    };
    let starts = || {
        vec![
            start(1, 5.0, None),
            start(2, 1.0, None),
            start(3, 7.5, Some("fog")),
        ]
    };
    let alone: Vec<Vec<f32>> = starts()
        .into_iter()
        .map(|mut state| {
            model.denoise(&mut [&mut state]).unwrap();
            state.latents().values().to_vec()
        })
        .collect();
    let mut together = starts();
    model
        .denoise(&mut together.iter_mut().collect::<Vec<_>>())
        .unwrap();
    for (state, alone) in together.iter().zip(&alone) {
        assert_eq!(state.latents().values(), alone);
    }
}

#[test]
fn what_this_version_does_not_run_is_named() {
    let refused =
        |change: fn(&str, Vec<u8>) -> Vec<u8>| changed("tiny-sdxl", change).unwrap_err().to_string();
    let refiner = refused(|path, bytes| match path {
        "model_index.json" => with_keys(&bytes, &serde_json::json!({"requires_aesthetics_score": true})),
        _ => bytes,
    });
    assert!(refiner.contains("a refiner of Stable Diffusion XL"), "{refiner}");
    let narrow = refused(|path, bytes| match path {
        "unet/config.json" => with_keys(&bytes, &serde_json::json!({"addition_embed_type": null})),
        _ => bytes,
    });
    // Its tensors for the sizes are then more than the network has.
    assert!(narrow.contains("cannot be loaded"), "{narrow}");
}
