//! Inpainting against diffusers' pipeline with 4 and 9 input channels, and what we promise beyond it: kept pixels come
//! back exactly, and an image depends on its request only.
//!
//! The files are made by `tests/golden/generate/inpaint.py` on the tiny models of `tests/golden/models`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use candle_core::{DType, Device, Tensor};
use pentimento_pipeline::{DenoiseState, StableDiffusion};
use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close, golden_dir, golden_runs};
use pentimento_types::{Recipe, RgbImage, SchedulerKind, Size};
use pentimento_weights::Checkpoint;
use support::{image_of, request, request_of, tiny};

/// The tiny model, with the UNet of `tests/golden/models/<name>` in it.
fn tiny_with_unet(name: &str) -> StableDiffusion {
    if name == "tiny" {
        return tiny(name);
    }
    let models = golden_dir().join("models");
    let unet = models.join(name);
    let checkpoint = Checkpoint::in_memory(name, move |path| {
        let folder = if path.starts_with("unet/") {
            &unet
        } else {
            &models.join("tiny")
        };
        fs_err::read(folder.join(path)).ok()
    });
    StableDiffusion::from_checkpoint(name, checkpoint, &pentimento_pipeline::Device::Cpu).unwrap()
}

fn run(model: &StableDiffusion, mut state: DenoiseState) -> RgbImage {
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    model.finish(state).unwrap()
}

/// Whether each pixel is repainted, read from a mask that is black and white already.
fn painted(mask: &RgbImage) -> Vec<bool> {
    mask.pixels().chunks_exact(3).map(|pixel| pixel[0] > 0).collect()
}

fn check(case: &str) {
    let golden = Golden::open(&format!("inpaint/{case}.safetensors"));
    let request = request_of(golden.about());
    let model = tiny_with_unet(golden.about()["model"].as_str().unwrap());
    let init = image_of(golden.tensor("input.u8"));
    let mask = image_of(golden.tensor("mask.u8"));

    let mut states = model.prepare_inpaint(&request, &init, &mask).unwrap();
    let mut state = states.remove(0);
    assert_values_close(
        &format!("{case}: start"),
        state.latents().values(),
        &golden.values("start"),
        Tolerance::TRAJECTORY,
    );
    let mut step = 0;
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
        let name = format!("step.{step}");
        assert_values_close(
            &format!("{case}: {name}"),
            state.latents().values(),
            &golden.values(&name),
            Tolerance::TRAJECTORY,
        );
        step += 1;
    }
    assert!(
        golden.get(&format!("step.{step}")).is_none(),
        "{case}: diffusers runs more than {step} steps"
    );

    // diffusers leaves it to its user to put the kept pixels back.
    let found = model.finish(state).unwrap();
    let expected = image_of(golden.tensor("output.u8"));
    let (mut compared, mut kept) = ((Vec::new(), Vec::new()), 0);
    let triples = found
        .pixels()
        .chunks_exact(3)
        .zip(expected.pixels().chunks_exact(3));
    for (((found, expected), init), mask) in triples
        .zip(init.pixels().chunks_exact(3))
        .zip(mask.pixels().chunks_exact(3))
    {
        let grey =
            (u32::from(mask[0]) * 19595 + u32::from(mask[1]) * 38470 + u32::from(mask[2]) * 7471 + 0x8000)
                >> 16;
        if grey >= 128 {
            compared.0.extend_from_slice(found);
            compared.1.extend_from_slice(expected);
        } else {
            assert_eq!(found, init, "{case}: a kept pixel");
            kept += 1;
        }
    }
    assert!(kept > 400, "{case}");
    let tensor = |levels: Vec<u8>| {
        Tensor::new(levels, &Device::Cpu)
            .unwrap()
            .to_dtype(DType::U8)
            .unwrap()
    };
    assert_close(
        &format!("{case}: image"),
        &tensor(compared.0),
        &tensor(compared.1),
        Tolerance::PICTURE,
    );
}

golden_runs! {
    "inpaint", check;
    blend_ddim_guided => "blend-ddim-guided",
    blend_ddim_full => "blend-ddim-full",
    blend_euler_guided => "blend-euler-guided",
    blend_euler_full => "blend-euler-full",
    blend_euler_full_guided => "blend-euler-full-guided",
    blend_lcm => "blend-lcm",
    blend_lcm_full => "blend-lcm-full",
    blend_unipc_guided => "blend-unipc-guided",
    blend_unipc_full => "blend-unipc-full",
    blend_ddpm => "blend-ddpm",
    blend_pndm => "blend-pndm",
    blend_lms => "blend-lms",
    blend_euler_ancestral => "blend-euler-ancestral",
    blend_dpm_multistep => "blend-dpm-multistep",
    blend_dpm_singlestep => "blend-dpm-singlestep",
    blend_heun => "blend-heun",
    blend_kdpm2 => "blend-kdpm2",
    blend_kdpm2_ancestral => "blend-kdpm2-ancestral",
    blend_deis => "blend-deis",
    nine_ddim_guided => "nine-ddim-guided",
    nine_ddim_full => "nine-ddim-full",
    nine_euler_guided => "nine-euler-guided",
    nine_euler_full => "nine-euler-full",
    nine_lcm => "nine-lcm",
    nine_lcm_full => "nine-lcm-full",
    nine_unipc_guided => "nine-unipc-guided",
    nine_unipc_full => "nine-unipc-full",
}

/// An image of changing levels.
fn image(width: u32, height: u32) -> RgbImage {
    let size = Size { width, height };
    let pixels = (0..size.pixels() * 3)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect();
    RgbImage::new(size, pixels).unwrap()
}

/// White in a rectangle whose corners are given as shares of the sides, black elsewhere.
fn rectangle(size: Size, from: f64, to: f64) -> RgbImage {
    let inside = |at: u32, side: u32| (from..to).contains(&(f64::from(at) / f64::from(side)));
    let pixels = (0..size.height)
        .flat_map(|y| (0..size.width).map(move |x| (x, y)))
        .flat_map(|(x, y)| {
            [if inside(x, size.width) && inside(y, size.height) {
                255
            } else {
                0
            }; 3]
        })
        .collect();
    RgbImage::new(size, pixels).unwrap()
}

fn inpaint(model: &StableDiffusion, request: &Recipe, init: &RgbImage, mask: &RgbImage) -> RgbImage {
    run(
        model,
        model.prepare_inpaint(request, init, mask).unwrap().remove(0),
    )
}

#[test]
fn kept_pixels_come_back_exactly_in_every_size_and_with_a_soft_edge() {
    for (name, kind) in [
        ("tiny", SchedulerKind::DDIM),
        ("tiny-inpaint", SchedulerKind::LCM),
    ] {
        let model = tiny_with_unet(name);
        for (width, height) in [(64, 64), (67, 45), (9, 70)] {
            let init = image(width, height);
            let mask = rectangle(init.size(), 0.2, 0.8);
            let request = Recipe {
                strength: 1.0,
                ..request(kind)
            };
            let hard = inpaint(&model, &request, &init, &mask);
            let soft = inpaint(
                &model,
                &Recipe {
                    soft_edge: 4,
                    ..request.clone()
                },
                &init,
                &mask,
            );
            let mut changed = 0;
            for (at, inside) in painted(&mask).into_iter().enumerate() {
                let pixel = |image: &RgbImage| image.pixels()[3 * at..3 * at + 3].to_vec();
                if inside {
                    changed += usize::from(pixel(&hard) != pixel(&init));
                } else {
                    assert_eq!(pixel(&hard), pixel(&init), "{name} {width}x{height} pixel {at}");
                    assert_eq!(
                        pixel(&soft),
                        pixel(&init),
                        "{name} {width}x{height} pixel {at}, soft"
                    );
                }
            }
            assert!(changed > 0 && hard != soft, "{name} {width}x{height}");
        }
    }
}

#[test]
fn nothing_to_repaint_gives_the_input_back_without_an_evaluation() {
    for name in ["tiny", "tiny-inpaint"] {
        let model = tiny_with_unet(name);
        let init = image(40, 33);
        let black = rectangle(init.size(), 2.0, 3.0);
        let white = rectangle(init.size(), 0.0, 1.0);
        for (mask, strength) in [(&black, 1.0), (&black, 0.5), (&white, 0.0)] {
            let request = Recipe {
                strength,
                ..request(SchedulerKind::EulerDiscrete)
            };
            let state = model.prepare_inpaint(&request, &init, mask).unwrap().remove(0);
            assert_eq!(state.evaluations_left(), 0, "{name} {strength}");
            assert_eq!(run(&model, state), init, "{name} {strength}");
        }
    }
}

/// Blending with a mask that is white everywhere changes nothing, so below strength 1 it is image to image.
#[test]
fn a_white_mask_is_image_to_image() {
    let model = tiny("tiny");
    let init = image(64, 40);
    let white = rectangle(init.size(), 0.0, 1.0);
    let request = Recipe {
        strength: 0.6,
        ..request(SchedulerKind::DDIM)
    };
    let found = inpaint(&model, &request, &init, &white);
    assert_eq!(
        found,
        run(&model, model.prepare(&request, &init).unwrap().remove(0))
    );
}

/// An inpainting checkpoint asked for image to image repaints everything.
#[test]
fn image_to_image_on_an_inpainting_checkpoint_has_a_white_mask() {
    let model = tiny_with_unet("tiny-inpaint");
    let init = image(64, 40);
    let white = rectangle(init.size(), 0.0, 1.0);
    for strength in [0.6, 1.0] {
        let request = Recipe {
            strength,
            guidance_scale: 4.0,
            ..request(SchedulerKind::LCM)
        };
        let found = run(&model, model.prepare(&request, &init).unwrap().remove(0));
        assert_eq!(found, inpaint(&model, &request, &init, &white));
    }
}

#[test]
fn a_small_mask_is_stretched_over_the_image() {
    let model = tiny("tiny");
    let init = image(64, 32);
    let large = rectangle(init.size(), 0.25, 0.75);
    let small = rectangle(Size { width: 8, height: 4 }, 0.25, 0.75);
    let request = request(SchedulerKind::DDIM);
    assert_eq!(
        inpaint(&model, &request, &init, &small),
        inpaint(&model, &request, &init, &large),
    );
}

/// At strength 1 the others start from noise alone.
#[test]
fn an_inversion_starts_from_its_image_at_full_strength_too() {
    let model = tiny("tiny");
    let init = image(40, 33);
    let mask = rectangle(init.size(), 0.2, 0.8);
    for (kind, from_image) in [(SchedulerKind::DDIMInverse, true), (SchedulerKind::DDIM, false)] {
        let recipe = Recipe {
            strength: 1.0,
            ..request(kind)
        };
        let inpainted = model.prepare_inpaint(&recipe, &init, &mask).unwrap().remove(0);
        let plain = model.prepare(&recipe, &init).unwrap().remove(0);
        assert_eq!(inpainted.latents() == plain.latents(), from_image, "{kind}");
    }
}

/// Inpainted and plain images share a forward, and each is what it is alone; image k is that of seed + k.
#[test]
fn company_changes_nothing() {
    for name in ["tiny", "tiny-inpaint"] {
        let model = tiny_with_unet(name);
        let init = image(48, 40);
        let mask = rectangle(init.size(), 0.1, 0.7);
        let requests: Vec<_> = (0..6_u32)
            .map(|k| Recipe {
                steps: 3 + k,
                strength: [0.5, 1.0, 0.8][k as usize % 3],
                guidance_scale: [1.0, 7.5][k as usize % 2],
                seed: u64::from(k),
                image_count: 1 + k % 2,
                ..request(
                    [
                        SchedulerKind::LCM,
                        SchedulerKind::DDIM,
                        SchedulerKind::EulerDiscrete,
                    ][k as usize % 3],
                )
            })
            .collect();
        let prepare = |k: usize, request: &Recipe| {
            if k < 4 {
                model.prepare_inpaint(request, &init, &mask).unwrap()
            } else {
                model.prepare(request, &init).unwrap()
            }
        };
        let mut states: Vec<_> = requests
            .iter()
            .enumerate()
            .flat_map(|(k, r)| prepare(k, r))
            .collect();
        while states.iter().any(|state| state.evaluations_left() > 0) {
            let mut batch: Vec<_> = states
                .iter_mut()
                .filter(|state| state.evaluations_left() > 0)
                .collect();
            model.denoise(&mut batch).unwrap();
        }
        let mut together = states.into_iter().map(|state| model.finish(state).unwrap());
        for (k, request) in requests.iter().enumerate() {
            for index in 0..request.image_count {
                let seed = request.seed + u64::from(index);
                let one = Recipe {
                    seed,
                    image_count: 1,
                    ..request.clone()
                };
                let alone = run(&model, prepare(k, &one).remove(0));
                assert_eq!(together.next().unwrap(), alone, "{name}: job {k}, image {index}");
            }
        }
    }
}
