//! An image depends on its request only: alone, twice, among others, and whatever the order, its bytes are the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use pentimento_pipeline::{DenoiseState, FinishStep, PrepareInput, PrepareStep, StableDiffusion};
use pentimento_testkit::Golden;
use pentimento_types::{Inputs, MERGED_FROM, Recipe, RgbImage, SchedulerKind, Size};
use support::{image_of, request, request_of, tiny};

fn input() -> RgbImage {
    image_of(Golden::open("pipeline/lcm-plain.safetensors").tensor("input.u8"))
}

fn alone(model: &StableDiffusion, request: &Recipe, init: &RgbImage) -> Vec<RgbImage> {
    let states = model.prepare(request, init).unwrap();
    states
        .into_iter()
        .map(|mut state| {
            while state.evaluations_left() > 0 {
                model.denoise(&mut [&mut state]).unwrap();
            }
            model.finish(state).unwrap()
        })
        .collect()
}

/// Sixteen jobs of different schedulers, steps, strengths, guidance, seeds and prompts in one batch, joining and
/// leaving as they please.
#[test]
fn sixteen_mixed_jobs_give_what_each_gives_alone() {
    let model = tiny("tiny");
    let init = input();
    let kinds = [
        SchedulerKind::LCM,
        SchedulerKind::DDIM,
        SchedulerKind::EulerDiscrete,
    ];
    let requests: Vec<_> = (0..16_u32)
        .map(|k| Recipe {
            prompt: format!("image number {k}"),
            negative_prompt: (k % 2 == 0).then(|| "blurry".to_owned()),
            steps: 2 + k % 7,
            strength: 0.3 + f64::from(k % 8) / 10.0,
            guidance_scale: [1.0, 7.5, 0.0, 3.0][k as usize % 4],
            seed: u64::from(k) * 1_000,
            clip_skip: 1 + k % 2,
            ..request(kinds[k as usize % 3])
        })
        .collect();
    let mut states: Vec<DenoiseState> = requests
        .iter()
        .flat_map(|request| model.prepare(request, &init).unwrap())
        .collect();
    while states.iter().any(|state| state.evaluations_left() > 0) {
        let mut batch: Vec<_> = states
            .iter_mut()
            .filter(|state| state.evaluations_left() > 0)
            .collect();
        model.denoise(&mut batch).unwrap();
    }
    for (k, (state, request)) in states.into_iter().zip(&requests).enumerate() {
        let together = model.finish(state).unwrap();
        assert_eq!(alone(&model, request, &init), [together], "job {k}");
    }
}

#[test]
fn looking_at_an_image_does_not_change_it() {
    let model = tiny("tiny");
    let init = input();
    for kind in [
        SchedulerKind::LCM,
        SchedulerKind::EulerAncestralDiscrete,
        SchedulerKind::HeunDiscrete,
        SchedulerKind::UniPCMultistep,
    ] {
        let request = request(kind);
        let mut states = model.prepare(&request, &init).unwrap();
        let mut state = states.remove(0);
        let mut previews = 0;
        while state.evaluations_left() > 0 {
            model.denoise(&mut [&mut state]).unwrap();
            let preview = model.preview(&state).unwrap();
            let (height, width) = state.latent_size();
            assert_eq!(preview.size().width as usize, width);
            assert_eq!(preview.size().height as usize, height);
            previews += 1;
        }
        assert!(previews > 0);
        assert_eq!(
            alone(&model, &request, &init)[0],
            model.finish(state).unwrap(),
            "{kind}"
        );
    }
}

#[test]
fn image_k_of_a_job_is_the_image_of_seed_plus_k() {
    let model = tiny("tiny");
    let init = input();
    let many = Recipe {
        image_count: 3,
        seed: 40,
        ..request(SchedulerKind::LCM)
    };
    let images = alone(&model, &many, &init);
    for (k, image) in images.iter().enumerate() {
        let one = Recipe {
            image_count: 1,
            seed: 40 + k as u64,
            ..many.clone()
        };
        assert_eq!(
            alone(&model, &one, &init),
            std::slice::from_ref(image),
            "image {k}"
        );
    }
    assert_ne!(images[0], images[1]);
}

#[test]
fn strength_0_gives_the_input_back() {
    let model = tiny("tiny");
    let init = input();
    for kind in [
        SchedulerKind::LCM,
        SchedulerKind::DDIM,
        SchedulerKind::EulerDiscrete,
    ] {
        let request = Recipe {
            strength: 0.0,
            ..request(kind)
        };
        assert_eq!(
            alone(&model, &request, &init),
            std::slice::from_ref(&init),
            "{kind}"
        );
    }
}

#[test]
fn more_strength_moves_further_from_the_input() {
    let golden = Golden::open("pipeline/ddim-guided.safetensors");
    let model = tiny("tiny");
    let init = input();
    let distance = |strength: f64| {
        let request = Recipe {
            strength,
            steps: 10,
            ..request_of(golden.about())
        };
        let image = alone(&model, &request, &init).remove(0);
        image
            .pixels()
            .iter()
            .zip(init.pixels())
            .map(|(a, b)| u64::from(a.abs_diff(*b)))
            .sum::<u64>()
    };
    assert!(distance(0.1) < distance(0.9));
}

#[test]
fn odd_sizes_come_back_in_their_own_size() {
    let model = tiny("tiny");
    for (width, height) in [(1, 1), (7, 65), (67, 45)] {
        let size = Size { width, height };
        let init = RgbImage::new(size, vec![90; size.pixels() as usize * 3]).unwrap();
        let image = alone(&model, &request(SchedulerKind::LCM), &init).remove(0);
        assert_eq!(image.size(), size);
    }
}

#[test]
fn a_prompt_beyond_77_tokens_is_not_cut() {
    let model = tiny("tiny");
    let init = input();
    let long = "lighthouse ".repeat(20);
    let with = |tail: &str| Recipe {
        prompt: format!("{long}{tail}"),
        guidance_scale: 5.0,
        ..request(SchedulerKind::DDIM)
    };
    let (a, b) = (with("at night"), with("in snow"));
    let tokens = model
        .encode_prompts(&a, &[])
        .unwrap()
        .cond
        .shape()
        .unwrap()
        .tokens;
    assert_eq!(tokens % 77, 0);
    assert!(tokens > 77);
    assert_ne!(alone(&model, &a, &init), alone(&model, &b, &init));
}

/// The two prompts are rows of one forward, so the shorter one has as many chunks of 77 tokens as the longer: chunks of
/// nothing, not its own again.
#[test]
fn a_short_prompt_beside_a_long_one_is_filled_up_with_empty_chunks() {
    let model = tiny("tiny");
    let long = "lighthouse ".repeat(20);
    let encode = |prompt: &str, negative_prompt: &str| {
        let recipe = Recipe {
            prompt: prompt.to_owned(),
            negative_prompt: Some(negative_prompt.to_owned()),
            guidance_scale: 5.0,
            ..request(SchedulerKind::DDIM)
        };
        let states = model.encode_prompts(&recipe, &[]).unwrap();
        [states.cond, states.uncond.unwrap()].map(|conditioning| {
            let states = &conditioning.token_states[0];
            let (_, tokens, width) = states.dims3().unwrap();
            let values = states.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values.len(), tokens * width);
            values.chunks(77 * width).map(<[f32]>::to_vec).collect::<Vec<_>>()
        })
    };
    let [empty, _] = encode("", "");
    let [short, blurry] = encode("a lighthouse", "blurry");
    assert_eq!([empty.len(), short.len(), blurry.len()], [1, 1, 1]);

    let is_filled_up = |filled: &[Vec<f32>], beside: &[Vec<f32>], prompt: &[f32]| {
        assert!(filled.len() == beside.len() && filled.len() > 1);
        assert_eq!(filled[0], prompt);
        assert!(filled[1..].iter().all(|chunk| *chunk == empty[0]));
    };
    let [cond, uncond] = encode("a lighthouse", &long);
    is_filled_up(&cond, &uncond, &short[0]);
    let [cond, uncond] = encode(&long, "blurry");
    is_filled_up(&uncond, &cond, &blurry[0]);
    assert_ne!(blurry, empty);
}

/// A NaN anywhere fails the one image and is never an image; its neighbours go on alone.
#[test]
fn a_spent_state_is_refused_and_its_neighbours_do_not_move() {
    let model = tiny("tiny");
    let init = input();
    let mut spent = model
        .prepare(&request(SchedulerKind::DDIM), &init)
        .unwrap()
        .remove(0);
    while spent.evaluations_left() > 0 {
        model.denoise(&mut [&mut spent]).unwrap();
    }
    let mut fresh = model
        .prepare(&request(SchedulerKind::DDIM), &init)
        .unwrap()
        .remove(0);
    let before = fresh.evaluations_left();
    assert!(model.denoise(&mut [&mut fresh, &mut spent]).is_err());
    assert_eq!(fresh.evaluations_left(), before);
}

/// A square image of smooth colours with some grain, so that tokens have near twins and no two are equal.
fn grained(side: u32) -> RgbImage {
    let size = Size {
        width: side,
        height: side,
    };
    let pixels = (0..side).flat_map(|y| {
        (0..side).flat_map(move |x| {
            let grain = x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(2_246_822_519);
            [x / 4, y / 4, (x + y) / 8].map(|v| (v % 224 + (grain >> 27)) as u8)
        })
    });
    RgbImage::new(size, pixels.collect()).unwrap()
}

#[test]
fn an_image_of_merged_tokens_does_not_see_its_neighbours_whether_they_merge_or_not() {
    let model = tiny("tiny");
    // The smallest one that merges.
    let init = grained(8 * u32::try_from((MERGED_FROM - 1).isqrt() + 1).unwrap());
    let lcm = |token_merging| Recipe {
        steps: 2,
        token_merging,
        ..request(SchedulerKind::LCM)
    };
    let guided = Recipe {
        guidance_scale: 5.0,
        seed: 1,
        ..lcm(true)
    };
    let requests = [guided, lcm(false), lcm(true)];
    let mut states = requests.each_ref().map(|request| {
        let mut states = model.prepare(request, &init).unwrap();
        states.remove(0)
    });
    while states[0].evaluations_left() > 0 {
        model.denoise(&mut states.each_mut()).unwrap();
    }
    let together = states.map(|state| model.finish(state).unwrap());
    assert_eq!(alone(&model, &requests[0], &init), together[..1]);
    assert_eq!(alone(&model, &requests[2], &init), together[2..]);
    assert_ne!(together[1], together[2], "merging must show");
}

#[test]
fn a_small_image_does_not_merge_its_tokens() {
    let model = tiny("tiny");
    let with = |token_merging| Recipe {
        token_merging,
        ..request(SchedulerKind::DDIM)
    };
    let init = grained(64);
    assert_eq!(
        alone(&model, &with(true), &init),
        alone(&model, &with(false), &init)
    );
}

/// Between two slices of one picture come slices and evaluations of others; its bytes are those of one go.
#[test]
fn pictures_of_odd_sizes_in_slices_by_turns_have_the_bytes_of_one_go() {
    let model = tiny("tiny");
    let request = Recipe {
        guidance_scale: 4.0,
        ..request(SchedulerKind::DDIM)
    };
    let sizes = [(67, 45), (8, 71), (33, 33)];
    let inits = sizes.map(|(width, height)| {
        let size = Size { width, height };
        let pixels = (0..size.pixels() * 3).map(|at| u8::try_from(at * 37 % 251).unwrap());
        RgbImage::new(size, pixels.collect()).unwrap()
    });
    let expected = inits.clone().map(|init| alone(&model, &request, &init));

    let mut preparations = inits.map(|init| {
        let begun = model.begin(PrepareInput {
            recipe: Arc::new(request.clone()),
            images: Inputs::new(init),
            embeddings: Vec::new(),
            max_prompt_tokens: usize::MAX,
        });
        Some(begun.unwrap())
    });
    let mut states = Vec::new();
    while preparations.iter().any(Option::is_some) {
        for (number, preparation) in preparations.iter_mut().enumerate() {
            let Some(under_way) = preparation else { continue };
            if let PrepareStep::Done(made) = model.advance(under_way).unwrap() {
                *preparation = None;
                states.extend(made.into_iter().map(|state| (number, state)));
            }
        }
    }
    let mut finishing = Vec::new();
    let mut found = vec![Vec::new(); sizes.len()];
    while !states.is_empty() || !finishing.is_empty() {
        if let Some((number, mut state)) = states.pop() {
            model.denoise(&mut [&mut state]).unwrap();
            if state.evaluations_left() > 0 {
                states.insert(0, (number, state));
            } else {
                finishing.push((number, model.begin_finish(state).unwrap()));
            }
        }
        for (number, mut under_way) in std::mem::take(&mut finishing) {
            match model.advance_finish(&mut under_way).unwrap() {
                FinishStep::Continue => finishing.push((number, under_way)),
                FinishStep::Done(image) => found[number].push(image),
            }
        }
    }
    assert_eq!(found, expected);
}
