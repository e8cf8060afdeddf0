//! Moving numbers: the order of an image's axes, and joining the channels of two.

use candle_core::Tensor;
use pentimento_kernels::cpu::{channels_first, channels_last, join_channels};

use super::{Case, Work, f32s, noise, run};

/// Channels, height and width.
const IMAGES: [(usize, usize); 3] = [(3, 512), (4, 64), (320, 64)];

/// Channels of the first, of the second, height and width.
const PAIRS: [(usize, usize, usize); 3] = [(640, 320, 64), (1280, 640, 32), (1280, 1280, 16)];

pub(super) fn all() -> Vec<Case> {
    let images = IMAGES.into_iter();
    let turned = images.flat_map(|image| [last(image), first(image)]);
    turned.chain(PAIRS.into_iter().map(join)).collect()
}

/// Nothing to compute, all numbers read and written.
fn moved(count: usize) -> Work {
    Work {
        direct: 0,
        done: 0,
        bytes: f32s(2 * count),
    }
}

fn last((channels, side): (usize, usize)) -> Case {
    let image = move || noise(&[1, channels, side, side]);
    Case {
        kernel: "layout, channels last",
        shape: format!("{channels} at {side}"),
        work: moved(channels * side * side),
        ours: Box::new(move || {
            let x = image();
            run(move || channels_last(&x))
        }),
        in_bf16: None,
        candle: Some(Box::new(move || {
            let x = image();
            run(move || x.permute((0, 2, 3, 1))?.contiguous())
        })),
    }
}

fn first((channels, side): (usize, usize)) -> Case {
    let image = move || noise(&[1, side, side, channels]);
    Case {
        kernel: "layout, channels first",
        shape: format!("{channels} at {side}"),
        work: moved(channels * side * side),
        ours: Box::new(move || {
            let x = image();
            run(move || channels_first(&x))
        }),
        in_bf16: None,
        candle: Some(Box::new(move || {
            let x = image();
            run(move || x.permute((0, 3, 1, 2))?.contiguous())
        })),
    }
}

fn join((first, second, side): (usize, usize, usize)) -> Case {
    let images = move || (noise(&[1, side, side, first]), noise(&[1, side, side, second]));
    Case {
        kernel: "joining",
        shape: format!("{first} and {second} at {side}"),
        work: moved((first + second) * side * side),
        ours: Box::new(move || {
            let (a, b) = images();
            run(move || join_channels(&a, &b))
        }),
        in_bf16: None,
        candle: Some(Box::new(move || {
            let (a, b) = images();
            run(move || Tensor::cat(&[&a, &b], 3))
        })),
    }
}
