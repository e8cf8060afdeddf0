//! What a row becomes does not depend on the rows beside it: the same bytes alone and in company, and in a second run. On a
//! card this is the question whether the engines that were pinned cut their sums as they should.

use crate::testing::{FLOATS, card, compute, device, numbers};
use crate::{
    AttnMask, Conv2d, ConvShape, DType, Error, Gpu, GroupNorm, HostData, LayerNorm, Linear, Tensor,
    ThreadOrder, TokenMerge, attend,
};

/// Rows that share a program.
const ROWS: [usize; 3] = [1, 2, 3];

/// Sizes of what is computed: those of a network on a card, and small ones in the emulator.
#[derive(Clone, Copy)]
struct Sizes {
    side: usize,
    channels: usize,
}

fn sizes() -> Sizes {
    if card().is_some() {
        Sizes {
            side: 32,
            channels: 320,
        }
    } else {
        Sizes {
            side: 6,
            channels: 16,
        }
    }
}

/// Compares each row of `layer` on images (B, h, w, C) alone and among others.
fn same_in_company(gpu: &Gpu, what: &str, dtype: DType, layer: impl Fn(&Tensor) -> Result<Tensor, Error>) {
    let Sizes { side, channels } = sizes();
    let most = ROWS[ROWS.len() - 1];
    let x = numbers(1, most * side * side * channels, dtype);
    let row = x.len() / most;
    let run = |x: &[f32]| {
        let shape = [x.len() / row, side, side, channels];
        compute(gpu, dtype, &[(&shape, x)], |x| Ok(vec![layer(&x[0])?])).remove(0)
    };
    let all = run(&x);
    assert!(all.iter().all(|x| x.is_finite()), "{what}");
    assert_eq!(run(&x), all, "{what} in {dtype:?}, the same twice");
    let result = all.len() / most;
    for rows in ROWS {
        for first in 0..=most - rows {
            let some = run(&x[first * row..][..rows * row]);
            assert_eq!(
                some,
                all[first * result..][..rows * result],
                "{what} in {dtype:?}, {rows} rows from {first} on"
            );
        }
    }
}

fn tokens(x: &Tensor) -> Result<Tensor, Error> {
    let Sizes { side, channels } = sizes();
    x.reshape(&[x.shape()[0], side * side, channels])
}

#[test]
fn products_are_the_same_in_company() {
    let (gpu, Sizes { channels, .. }) = (device(ThreadOrder::WarpsRandom), sizes());
    for dtype in FLOATS {
        let linear = linear(&gpu, channels, dtype);
        same_in_company(&gpu, "linear", dtype, |x| {
            linear.forward(&tokens(x)?, Some(&tokens(x)?))
        });
        for stride in [1, 2] {
            let shape = ConvShape {
                inputs: channels,
                outputs: channels,
                side: 3,
                stride,
                before: 1,
                after: 1,
            };
            let weight = numbers(3, 9 * channels * channels, dtype);
            let bias = numbers(4, channels, dtype);
            let (weight, bias) = (HostData::F32(&weight), HostData::F32(&bias));
            let conv = Conv2d::new(&gpu, shape, weight, Some(bias), dtype).unwrap();
            same_in_company(&gpu, "convolution", dtype, |x| conv.forward(x));
        }
    }
}

fn linear(gpu: &Gpu, channels: usize, dtype: DType) -> Linear {
    let (weight, bias) = (
        numbers(3, channels * channels, dtype),
        numbers(4, channels, dtype),
    );
    let bias = Some(HostData::F32(&bias));
    Linear::new(gpu, (channels, channels), HostData::F32(&weight), bias, dtype).unwrap()
}

#[test]
fn attention_is_the_same_in_company() {
    let gpu = device(ThreadOrder::WarpsRandom);
    for dtype in FLOATS {
        same_in_company(&gpu, "attention", dtype, |x| {
            let x = tokens(x)?;
            attend(&x, &x, &x, 2, AttnMask::None)
        });
        same_in_company(&gpu, "causal attention", dtype, |x| {
            let x = tokens(x)?;
            attend(&x, &x, &x, 2, AttnMask::Causal)
        });
    }
}

#[test]
fn norms_are_the_same_in_company() {
    let (gpu, Sizes { channels, .. }) = (device(ThreadOrder::WarpsRandom), sizes());
    let (weight, bias) = (numbers(5, channels, DType::F32), numbers(6, channels, DType::F32));
    let group = GroupNorm::new(&gpu, &weight, &bias, 8, 1e-5).unwrap();
    let layer = LayerNorm::new(&gpu, &weight, &bias, 1e-5).unwrap();
    for dtype in FLOATS {
        same_in_company(&gpu, "group norm", dtype, |x| group.forward(x, true));
        same_in_company(&gpu, "sum and group norm", dtype, |x| {
            Ok(group.add_forward(x, x, true)?.1)
        });
        same_in_company(&gpu, "layer norm", dtype, |x| layer.forward(x));
    }
}

#[test]
fn merged_tokens_are_the_same_in_company() {
    let (gpu, Sizes { side, .. }) = (device(ThreadOrder::WarpsRandom), sizes());
    for dtype in FLOATS {
        same_in_company(&gpu, "token merging", dtype, |x| {
            let x = tokens(x)?;
            let merge = TokenMerge::choose(&x, (side, side), side * side / 2)?;
            let merge = merge.ok_or_else(|| Error::operands("test", "there is something to merge"))?;
            merge.unmerge(&merge.merge(&x)?, &x)
        });
    }
}
