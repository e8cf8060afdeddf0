//! Group norms of images, in their two halves and whole, and layer norms of tokens.

use candle_core::Module;
use pentimento_kernels::cpu::{GroupNorm, LayerNorm};

use super::{Case, Work, f32s, noise, run};

/// Channels, height and width.
const IMAGES: [(usize, usize); 5] = [(320, 64), (640, 32), (1280, 16), (512, 128), (128, 512)];

/// Tokens and their width.
const TOKENS: [(usize, usize); 4] = [(4096, 320), (1024, 640), (256, 1280), (77, 768)];

const GROUPS: usize = 32;

pub(super) fn all() -> Vec<Case> {
    let images = IMAGES.into_iter();
    let groups = images.flat_map(|image| [statistics(image), application(image), whole_group(image)]);
    groups.chain(TOKENS.into_iter().map(layer)).collect()
}

/// Operations and bytes for each of `count` numbers.
fn each(count: usize, operations: usize, bytes: usize) -> Work {
    Work {
        direct: operations * count,
        done: operations * count,
        bytes: bytes * count,
    }
}

fn group_norm(channels: usize) -> GroupNorm {
    GroupNorm::new(&noise(&[channels]), &noise(&[channels]), GROUPS, 1e-5).unwrap()
}

/// The mean, and the squares of the differences from it: 1 + 3 operations.
fn statistics((channels, side): (usize, usize)) -> Case {
    Case {
        kernel: "group norm, statistics",
        shape: format!("{channels} at {side}"),
        work: each(side * side * channels, 4, f32s(1)),
        ours: Box::new(move || {
            let (norm, x) = (group_norm(channels), noise(&[1, side, side, channels]));
            run(move || norm.normalisation(&x))
        }),
        in_bf16: None,
        candle: None,
    }
}

/// A multiplication and an addition; SiLU is computed and not counted.
fn application((channels, side): (usize, usize)) -> Case {
    Case {
        kernel: "group norm, application with SiLU",
        shape: format!("{channels} at {side}"),
        work: each(side * side * channels, 2, f32s(2)),
        ours: Box::new(move || {
            let x = noise(&[1, side, side, channels]);
            let norm = group_norm(channels).normalisation(&x).unwrap().with_silu();
            run(move || norm.apply(&x))
        }),
        in_bf16: None,
        candle: None,
    }
}

fn whole_group((channels, side): (usize, usize)) -> Case {
    Case {
        kernel: "group norm with SiLU",
        shape: format!("{channels} at {side}"),
        work: each(side * side * channels, 6, f32s(2)),
        ours: Box::new(move || {
            let (norm, x) = (group_norm(channels), noise(&[1, side, side, channels]));
            run(move || norm.normalisation(&x)?.with_silu().apply(&x))
        }),
        in_bf16: None,
        candle: Some(Box::new(move || {
            let (weight, bias) = (noise(&[channels]), noise(&[channels]));
            let norm = candle_nn::GroupNorm::new(weight, bias, channels, GROUPS, 1e-5).unwrap();
            let x = noise(&[1, channels, side, side]);
            run(move || norm.forward(&x)?.silu())
        })),
    }
}

/// Mean, deviations, and the four steps of (x - mean) · factor · weight + bias.
fn layer((tokens, width): (usize, usize)) -> Case {
    Case {
        kernel: "layer norm",
        shape: format!("{tokens}x{width}"),
        work: each(tokens * width, 8, f32s(2)),
        ours: Box::new(move || {
            let norm = LayerNorm::new(&noise(&[width]), &noise(&[width]), 1e-5).unwrap();
            let x = noise(&[1, tokens, width]);
            run(move || norm.forward(&x))
        }),
        in_bf16: None,
        candle: Some(Box::new(move || {
            let (weight, bias) = (noise(&[width]), noise(&[width]));
            let x = noise(&[1, tokens, width]);
            run(move || candle_nn::ops::layer_norm(&x, &weight, &bias, 1e-5))
        })),
    }
}
