//! Weights, chunks and textual inversions against A1111's arithmetic on transformers' text encoder, and against diffusers.
//!
//! The files are made by `tests/golden/generate/prompts.py` on the tiny model of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use std::sync::Arc;

use pentimento_pipeline::{PrepareInput, PrepareStep, PromptEmbedding, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close};
use pentimento_types::{Inputs, Recipe, RgbImage, SchedulerKind};
use support::{image_of, request, request_of, tiny};
use tensors::tensor_of;

#[test]
fn states_are_those_of_the_reference() {
    let golden = Golden::open("prompts/states.safetensors");
    let model = tiny("tiny");
    let cases = golden.about()["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 8);
    for (name, case) in cases {
        let recipe = Recipe {
            prompt: case["prompt"].as_str().unwrap().to_owned(),
            clip_skip: u32::try_from(case["clip_skip"].as_u64().unwrap()).unwrap(),
            ..request(SchedulerKind::DDIM)
        };
        let states = model.encode_prompts(&recipe, &[]).unwrap().cond;
        let tolerance = if recipe.prompt.contains(['(', '[']) {
            Tolerance::WEIGHTED_CLIP
        } else {
            Tolerance::CLIP
        };
        assert_close(name, &states.token_states[0], golden.tensor(name), tolerance);
    }
}

/// The weights in it are read from the text alone: a weight of one changes no byte.
#[test]
fn a_weight_of_one_is_none() {
    let model = tiny("tiny");
    let states = |prompt: &str| {
        let recipe = Recipe {
            prompt: prompt.to_owned(),
            ..request(SchedulerKind::DDIM)
        };
        let states = model
            .encode_prompts(&recipe, &[])
            .unwrap()
            .cond
            .token_states
            .remove(0);
        states.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(states("a (red:1.0) house"), states("a red house"));
    assert_ne!(states("a (red:1.1) house"), states("a red house"));
}

#[test]
fn a_weighted_and_long_prompt_gives_the_reference_s_picture() {
    let golden = Golden::open("prompts/picture.safetensors");
    check_picture("picture", &golden, &[]);
}

#[test]
fn textual_inversions_are_diffusers() {
    let golden = Golden::open("prompts/inversion.safetensors");
    let embeddings = embeddings(&golden);
    check_picture("inversion", &golden, &embeddings);
    let model = tiny("tiny");
    let recipe = Recipe {
        prompt: golden.about()["weighted"].as_str().unwrap().to_owned(),
        ..request(SchedulerKind::DDIM)
    };
    let states = model.encode_prompts(&recipe, &embeddings).unwrap().cond;
    assert_close(
        "weighted",
        &states.token_states[0],
        golden.tensor("weighted"),
        Tolerance::WEIGHTED_CLIP,
    );
}

#[test]
fn an_embedding_of_another_width_is_refused_where_it_is_used() {
    let model = tiny("tiny");
    let wide =
        candle_core::Tensor::zeros((2, 768), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let embeddings = [PromptEmbedding::new("wide", ["wide".to_owned()], vec![wide]).unwrap()];
    let encode = |prompt: &str| {
        let recipe = Recipe {
            prompt: prompt.to_owned(),
            ..request(SchedulerKind::DDIM)
        };
        model.encode_prompts(&recipe, &embeddings)
    };
    encode("a widening").unwrap();
    assert_eq!(
        encode("a wide one").unwrap_err().to_string(),
        "the embedding `wide` is for text encoders of width [768], and the checkpoint's has 32"
    );
}

fn embeddings(golden: &Golden) -> Vec<PromptEmbedding> {
    let vectors = |name: &str| vec![golden.tensor(name).clone()];
    vec![
        PromptEmbedding::new("first", ["<one>".to_owned()], vectors("one")).unwrap(),
        PromptEmbedding::new("badthree", ["badthree".to_owned()], vectors("three")).unwrap(),
    ]
}

/// The states of both prompts, and the picture.
fn check_picture(name: &str, golden: &Golden, embeddings: &[PromptEmbedding]) {
    let model = tiny("tiny");
    let recipe = request_of(golden.about());
    let states = model.encode_prompts(&recipe, embeddings).unwrap();
    let uncond = states.uncond.unwrap();
    for (what, found) in [("cond", &states.cond), ("uncond", &uncond)] {
        let what_of = format!("{name}: {what}");
        assert_close(
            &what_of,
            &found.token_states[0],
            golden.tensor(what),
            Tolerance::WEIGHTED_CLIP,
        );
    }
    let image = generate(&model, recipe, image_of(golden.tensor("input.u8")), embeddings);
    assert_close(
        name,
        &tensor_of(&image),
        golden.tensor("output.u8"),
        Tolerance::PICTURE,
    );
}

fn generate(
    model: &StableDiffusion,
    recipe: Recipe,
    init: RgbImage,
    embeddings: &[PromptEmbedding],
) -> RgbImage {
    let mut preparation = model
        .begin(PrepareInput {
            recipe: Arc::new(recipe),
            images: Inputs::new(init),
            embeddings: embeddings.to_vec(),
            max_prompt_tokens: 300,
        })
        .unwrap();
    let mut state = loop {
        if let PrepareStep::Done(mut states) = model.advance(&mut preparation).unwrap() {
            break states.remove(0);
        }
    };
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}
