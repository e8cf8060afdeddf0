//! Group and layer norms.

use crate::testing::{assert_close, compute, each_way, numbers};
use crate::{DType, GroupNorm, LayerNorm};

/// (B, pixels, channels, groups)
const SHAPES: [[usize; 4]; 5] = [
    [2, 63, 40, 8],
    [1, 1, 32, 32],
    [3, 7, 6, 3],
    [1, 300, 96, 1],
    [1, 9000, 4, 2],
];

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The definition: each group of a row has mean 0 and variance 1, before weight and bias.
pub(super) fn reference(
    x: &[f64],
    [rows, pixels, channels, groups]: [usize; 4],
    (weight, bias): (&[f32], &[f32]),
    activated: bool,
) -> Vec<f64> {
    let width = channels / groups;
    let mut y = vec![0.0; x.len()];
    for (row, group) in (0..rows).flat_map(|row| (0..groups).map(move |group| (row, group))) {
        let places: Vec<usize> = (0..pixels)
            .flat_map(|p| (0..width).map(move |c| (row * pixels + p) * channels + group * width + c))
            .collect();
        let count = places.len() as f64;
        let mean = places.iter().map(|i| x[*i]).sum::<f64>() / count;
        let variance = places.iter().map(|i| (x[*i] - mean).powi(2)).sum::<f64>() / count;
        for i in places {
            let c = i % channels;
            let value = (x[i] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[c]) + f64::from(bias[c]);
            y[i] = if activated { silu(value) } else { value };
        }
    }
    y
}

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Weight and bias of a norm.
pub(super) fn weights(channels: usize) -> (Vec<f32>, Vec<f32>) {
    (
        numbers(90, channels, DType::F32),
        numbers(91, channels, DType::F32),
    )
}

#[test]
fn group_norm_equals_its_definition() {
    for shape @ [rows, pixels, channels, groups] in SHAPES {
        each_way(|gpu, dtype| {
            let (weight, bias) = weights(channels);
            // A mean that is large beside the deviation is where sums of squares fail.
            let x: Vec<f32> = numbers(1, rows * pixels * channels, dtype)
                .iter()
                .map(|x| if dtype == DType::F32 { x + 30.0 } else { *x })
                .collect();
            for silu in [false, true] {
                let norm = GroupNorm::new(gpu, &weight, &bias, groups, 1e-5).unwrap();
                let got = compute(gpu, dtype, &[(&[rows, pixels, channels], &x)], |x| {
                    Ok(vec![norm.forward(&x[0], silu)?])
                });
                let want = reference(&wide(&x), shape, (&weight, &bias), silu);
                // At a mean of 30 the last digit of an f32 is 2e-6 already.
                if dtype == DType::F32 {
                    assert!(crate::testing::distance(&got[0], &want) < 1e-5, "{shape:?}");
                } else {
                    assert_close("group norm", dtype, &got[0], &want);
                }
            }
        });
    }
}

#[test]
fn a_joined_skip_is_normalised_as_one_image() {
    let (rows, pixels, first, second, groups) = (2, 33, 24, 16, 8);
    each_way(|gpu, dtype| {
        let (weight, bias) = weights(first + second);
        let (x, skip) = (
            numbers(2, rows * pixels * first, dtype),
            numbers(3, rows * pixels * second, dtype),
        );
        let joined: Vec<f64> = x
            .chunks(first)
            .zip(skip.chunks(second))
            .flat_map(|(x, skip)| x.iter().chain(skip).map(|x| f64::from(*x)))
            .collect();
        let norm = GroupNorm::new(gpu, &weight, &bias, groups, 1e-5).unwrap();
        let given: [(&[usize], &[f32]); 2] = [(&[rows, pixels, first], &x), (&[rows, pixels, second], &skip)];
        let got = compute(gpu, dtype, &given, |x| {
            Ok(vec![norm.forward_joined(&x[0], Some(&x[1]), true)?])
        });
        let shape = [rows, pixels, first + second, groups];
        let want = reference(&joined, shape, (&weight, &bias), true);
        assert_close("norm of a joined skip", dtype, &got[0], &want);
    });
}

#[test]
fn what_is_added_first_is_in_the_sum_and_in_the_norm() {
    for shape @ [rows, pixels, channels, groups] in SHAPES {
        for bias_of_row in [false, true] {
            each_way(|gpu, dtype| {
                let (weight, bias) = weights(channels);
                let x = numbers(4, rows * pixels * channels, dtype);
                let places = if bias_of_row { 1 } else { pixels };
                let other = numbers(5, rows * places * channels, dtype);
                let norm = GroupNorm::new(gpu, &weight, &bias, groups, 1e-5).unwrap();
                let given: [(&[usize], &[f32]); 2] = [
                    (&[rows, pixels, channels], &x),
                    (&[rows, places, channels], &other),
                ];
                let got = compute(gpu, dtype, &given, |x| {
                    let (sum, y) = norm.add_forward(&x[0], &x[1], true)?;
                    Ok(vec![sum, y])
                });
                let sum: Vec<f64> = (0..x.len())
                    .map(|i| {
                        let at = if bias_of_row {
                            i / (pixels * channels) * channels + i % channels
                        } else {
                            i
                        };
                        f64::from(x[i]) + f64::from(other[at])
                    })
                    .collect();
                assert_close("sum", dtype, &got[0], &sum);
                // The norm is that of the sum as it is stored.
                let want = reference(&wide(&got[0]), shape, (&weight, &bias), true);
                let limit = if dtype == DType::F32 { 1e-5 } else { 5e-4 };
                assert!(crate::testing::distance(&got[1], &want) < limit, "{shape:?}");
            });
        }
    }
}

#[test]
fn layer_norm_equals_its_definition() {
    for (lines, width) in [(1, 1), (13, 77), (37, 320), (8, 31)] {
        each_way(|gpu, dtype| {
            let (weight, bias) = weights(width);
            let x = numbers(6, lines * width, dtype);
            let norm = LayerNorm::new(gpu, &weight, &bias, 1e-5).unwrap();
            let got = compute(gpu, dtype, &[(&[lines, width], &x)], |x| {
                Ok(vec![norm.forward(&x[0])?])
            });
            // A layer norm is a group norm of one pixel with one group.
            let want = reference(&wide(&x), [lines, 1, width, 1], (&weight, &bias), false);
            assert_close("layer norm", dtype, &got[0], &want);
        });
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let gpu = crate::testing::device(crate::ThreadOrder::Ascending);
    let (rows, pixels, channels) = (3, 200, 64);
    let (weight, bias) = weights(channels);
    let norm = GroupNorm::new(&gpu, &weight, &bias, 8, 1e-5).unwrap();
    let x = numbers(7, rows * pixels * channels, DType::F32);
    let run = |x: &[f32], rows: usize| {
        compute(&gpu, DType::F32, &[(&[rows, pixels, channels], x)], |x| {
            Ok(vec![norm.forward(&x[0], true)?])
        })
    };
    let all = run(&x, rows);
    for (row, x) in x.chunks(pixels * channels).enumerate() {
        let alone = run(x, 1);
        assert_eq!(alone[0], all[0][row * pixels * channels..][..pixels * channels]);
    }
}
