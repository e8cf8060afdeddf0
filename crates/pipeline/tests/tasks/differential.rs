//! Differential diffusion against its reference: every latent and the picture; and what a map means.
//!
//! The files are made by `tests/golden/generate/differential.py` on the tiny models of `tests/golden/models`.

use pentimento_pipeline::{DenoiseState, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_runs};
use pentimento_types::{Recipe, RgbImage, SchedulerKind, Size};

use crate::models::model_of;
use crate::support::{image_of, request, request_of, tiny};
use crate::tensors::tensor_of;

fn check(case: &str) {
    let golden = Golden::open(&format!("differential/{case}.safetensors"));
    let model = model_of(&golden);
    let request = by_grey(request_of(golden.about()));
    let (init, map) = (
        image_of(golden.tensor("input.u8")),
        image_of(golden.tensor("mask.u8")),
    );
    let mut state = model.prepare_inpaint(&request, &init, &map).unwrap().remove(0);
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
    let mut evaluation = 0;
    while state.evaluations_left() > 0 {
        close(&format!("before.{evaluation}"), state.latents().values());
        model.denoise(&mut [&mut state]).unwrap();
        evaluation += 1;
    }
    close(&format!("step.{}", evaluation - 1), state.latents().values());
    assert!(
        golden.get(&format!("step.{evaluation}")).is_none(),
        "{case}: the reference runs more than {evaluation} evaluations"
    );
    let found = model.finish(state).unwrap();
    // The reference puts no pixels back, so where the map is black its picture is the input here.
    let mut expected = image_of(golden.tensor("output.u8")).into_pixels();
    let pixels = expected.chunks_exact_mut(3).zip(init.pixels().chunks_exact(3));
    for ((expected, init), level) in pixels.zip(map.pixels().chunks_exact(3)) {
        if level == [0; 3] {
            expected.copy_from_slice(init);
        }
    }
    let expected = RgbImage::new(init.size(), expected).unwrap();
    assert_close(
        &format!("{case}: image"),
        &tensor_of(&found),
        &tensor_of(&expected),
        Tolerance::PICTURE,
    );
}

golden_runs! {
    "differential", check;
    sd1_ddim => "sd1-ddim",
    sd1_ddim_half => "sd1-ddim-half",
    sd1_euler => "sd1-euler",
    sd1_euler_full => "sd1-euler-full",
    sd1_ancestral => "sd1-ancestral",
    sd1_dpm_multistep => "sd1-dpm-multistep",
    sd1_unipc => "sd1-unipc",
    sd1_heun => "sd1-heun",
    sd1_pndm => "sd1-pndm",
    sd1_lcm => "sd1-lcm",
    sd2_ddim => "sd2-ddim",
    sdxl_ddim => "sdxl-ddim",
    sdxl_euler => "sdxl-euler",
    sdxl_dpm_multistep => "sdxl-dpm-multistep",
}

/// Sides that are no multiple of 8, so that the map's edge is repeated.
const SIZE: Size = Size {
    width: 61,
    height: 43,
};

fn by_grey(recipe: Recipe) -> Recipe {
    Recipe {
        differential_diffusion: true,
        ..recipe
    }
}

fn image(pixel: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
    let lines = (0..SIZE.height).flat_map(|y| (0..SIZE.width).map(move |x| (x, y)));
    RgbImage::new(SIZE, lines.flat_map(|(x, y)| pixel(x, y)).collect()).unwrap()
}

fn input() -> RgbImage {
    image(|x, y| [x * 4, y * 5, (x * y) % 256].map(|level| u8::try_from(level).unwrap()))
}

fn grey(level: u8) -> RgbImage {
    image(|_, _| [level; 3])
}

fn recipe(kind: SchedulerKind, strength: f64) -> Recipe {
    Recipe {
        steps: 8,
        strength,
        guidance_scale: 3.0,
        seed: 4,
        ..by_grey(request(kind))
    }
}

fn finished(model: &StableDiffusion, mut state: DenoiseState) -> RgbImage {
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

fn changed(model: &StableDiffusion, recipe: &Recipe, map: &RgbImage) -> RgbImage {
    let states = model.prepare_inpaint(recipe, &input(), map);
    finished(model, states.unwrap().remove(0))
}

fn distance(one: &RgbImage, other: &RgbImage) -> u64 {
    let levels = one.pixels().iter().zip(other.pixels());
    levels.map(|(one, other)| u64::from(one.abs_diff(*other))).sum()
}

#[test]
fn white_is_image_to_image_and_black_is_the_input() {
    let model = tiny("tiny");
    for (kind, strength) in [
        (SchedulerKind::DDIM, 1.0),
        (SchedulerKind::EulerAncestralDiscrete, 0.6),
        (SchedulerKind::KarrasVe, 0.6),
    ] {
        let recipe = recipe(kind, strength);
        let whole = finished(
            &model,
            model
                .prepare(
                    &Recipe {
                        differential_diffusion: false,
                        ..recipe.clone()
                    },
                    &input(),
                )
                .unwrap()
                .remove(0),
        );
        assert!(changed(&model, &recipe, &grey(255)) == whole, "{kind}");
        assert!(changed(&model, &recipe, &grey(0)) == input(), "{kind}");
    }
}

/// A map of one grey runs the last of its evaluations freely, so that the latents leave the image's in the order of the grey.
#[test]
fn the_lighter_the_map_the_larger_the_change() {
    let model = tiny("tiny");
    let recipe = recipe(SchedulerKind::DDIM, 1.0);
    let unchanged = changed(&model, &recipe, &grey(1));
    let distances: Vec<u64> = [64, 128, 192, 255]
        .into_iter()
        .map(|level| distance(&changed(&model, &recipe, &grey(level)), &unchanged))
        .collect();
    assert!(distances.is_sorted_by(|less, more| less < more), "{distances:?}");
    assert!(distances[0] > 0, "{distances:?}");
}

#[test]
fn black_pixels_are_the_inputs_own_and_no_row_depends_on_another() {
    let model = tiny("tiny");
    let map = image(|x, y| {
        [if x < 20 || y > 38 {
            0
        } else {
            u8::try_from(x * 4).unwrap()
        }; 3]
    });
    let recipes: Vec<Recipe> = [
        (SchedulerKind::DDIM, 1.0),
        (SchedulerKind::UniPCMultistep, 0.7),
        (SchedulerKind::HeunDiscrete, 0.5),
        (SchedulerKind::LCM, 0.8),
        (SchedulerKind::ScoreSdeVe, 0.6),
    ]
    .map(|(kind, strength)| recipe(kind, strength))
    .to_vec();
    let alone: Vec<RgbImage> = recipes
        .iter()
        .map(|recipe| changed(&model, recipe, &map))
        .collect();
    let prepared = recipes
        .iter()
        .flat_map(|recipe| model.prepare_inpaint(recipe, &input(), &map).unwrap());
    let mut states: Vec<DenoiseState> = prepared.collect();
    // A hard mask and no mask in the same forwards.
    let hard = Recipe {
        differential_diffusion: false,
        ..recipes[0].clone()
    };
    states.extend(model.prepare_inpaint(&hard, &input(), &map).unwrap());
    states.extend(model.prepare(&hard, &input()).unwrap());
    while states.iter().any(|state| state.evaluations_left() > 0) {
        let left = states.iter_mut().filter(|state| state.evaluations_left() > 0);
        model.denoise(&mut left.collect::<Vec<_>>()).unwrap();
    }
    let original = input();
    for ((state, alone), recipe) in states.into_iter().zip(&alone).zip(&recipes) {
        assert!(
            model.finish(state).unwrap() == *alone,
            "{:?}",
            recipe.scheduler.kind
        );
        let pixels = alone
            .pixels()
            .chunks_exact(3)
            .zip(original.pixels().chunks_exact(3));
        let levels = map.pixels().chunks_exact(3);
        let kept = pixels.zip(levels).filter(|(_, level)| level[0] == 0);
        assert!(kept.clone().count() > 800);
        assert!(
            kept.into_iter().all(|((found, input), _)| found == input),
            "{:?}",
            recipe.scheduler.kind
        );
        assert!(*alone != input());
    }
}

#[test]
fn what_a_map_has_no_meaning_with_is_refused_by_name() {
    let map = grey(100);
    let refused = |model: &StableDiffusion, recipe: &Recipe| {
        let error = model.prepare_inpaint(recipe, &input(), &map).unwrap_err();
        let (setting, problem) = error.refused_setting().unwrap();
        assert_eq!(setting, "differential_diffusion");
        problem
    };
    let ordinary = tiny("tiny");
    let inverse = refused(&ordinary, &recipe(SchedulerKind::DDIMInverse, 0.5));
    assert!(inverse.contains("DDIMInverse"), "{inverse}");
    let golden = Golden::open("text_to_image/sd1-nine-ddim.safetensors");
    let nine = refused(&model_of(&golden), &recipe(SchedulerKind::DDIM, 0.5));
    assert!(nine.contains("for inpainting"), "{nine}");
    let without = ordinary
        .prepare(&recipe(SchedulerKind::DDIM, 0.5), &input())
        .unwrap_err();
    assert!(
        without.refused_setting().unwrap().1.contains("needs a mask"),
        "{without}"
    );
}
