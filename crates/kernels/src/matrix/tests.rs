//! Linear layers against an f64 reference, element by element, on odd shapes and every instruction set of the machine.

use candle_core::{DType, Tensor};

use super::{Activation, Linear};
use crate::isa::Isa;
use crate::testing::{
    assert_near, assert_same, assert_same_on_threads, every_set, noise, row, tolerance, wide, with_pairs,
};

/// x · weightᵀ + bias in f64, element by element.
fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Vec<Vec<f64>> {
    let (_, inputs) = weight.dims2().unwrap();
    let (x, weight, bias) = (wide(x), wide(weight), wide(bias));
    let line = |x: &[f64]| -> Vec<f64> {
        let dot = |w: &[f64]| x.iter().zip(w).map(|(a, b)| a * b).sum::<f64>();
        weight
            .chunks(inputs)
            .zip(&bias)
            .map(|(w, b)| dot(w) + b)
            .collect()
    };
    x.chunks(inputs).map(line).collect()
}

fn erf(x: f64) -> f64 {
    // Taylor's series, and 1 where the rest is below 1e-6.
    if x.abs() > 3.5 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Gelu => x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt())),
    }
}

const ACTIVATIONS: [Activation; 4] = [
    Activation::None,
    Activation::Silu,
    Activation::QuickGelu,
    Activation::Gelu,
];

#[test]
fn every_variant_equals_the_reference_on_odd_shapes() {
    let shapes = [
        (1, 1, 1),
        (3, 5, 2),
        (7, 31, 33),
        (63, 64, 65),
        (193, 700, 17),
        (12, 16, 129),
        // Rows that are copied side by side first.
        (14, 1024, 18),
        (18, 1024, 18),
    ];
    for isa in every_set() {
        for (rows, inputs, outputs) in shapes {
            let (x, w, b) = (
                noise(&[1, rows, inputs], 1),
                noise(&[outputs, inputs], 2),
                noise(&[outputs], 3),
            );
            let residual = noise(&[1, rows, outputs], 4);
            let expected = reference(&x, &w, &b).concat();
            let layer = Linear::new(&w, Some(&b)).unwrap();
            for activation in ACTIVATIONS {
                let what = format!("{isa} {rows}x{inputs} to {outputs} {activation:?}");
                let found = layer
                    .forward_with((isa, None), &x, activation, Some(&residual))
                    .unwrap();
                let added = expected.iter().zip(wide(&residual));
                let expected: Vec<f64> = added.map(|(y, r)| activated(activation, *y) + r).collect();
                assert_near(&what, &found, &expected, tolerance(isa, 2e-6));
            }
        }
    }
}

#[test]
fn geglu_multiplies_the_halves_whatever_their_width() {
    for isa in every_set() {
        for half in [1, 15, 16, 17, 40, 150] {
            let (x, w, b) = (
                noise(&[1, 21, 37], 1),
                noise(&[2 * half, 37], 2),
                noise(&[2 * half], 3),
            );
            let expected: Vec<f64> = reference(&x, &w, &b)
                .into_iter()
                .flat_map(|y| {
                    let gated = |j: usize| y[j] * activated(Activation::Gelu, y[half + j]);
                    (0..half).map(gated).collect::<Vec<_>>()
                })
                .collect();
            let layer = Linear::geglu(&w, Some(&b)).unwrap();
            let found = layer
                .forward_with((isa, None), &x, Activation::None, None)
                .unwrap();
            assert_eq!(found.dims(), [1, 21, half]);
            assert_near(
                &format!("{isa} half {half}"),
                &found,
                &expected,
                tolerance(isa, 2e-6),
            );
        }
    }
}

/// D, U and U · D in f32.
fn low_rank(rank: usize, inputs: usize, rows: usize) -> (Tensor, Tensor, Tensor) {
    let (down, up) = (noise(&[rank, inputs], 5), noise(&[rows, rank], 6));
    let product = up.matmul(&down).unwrap();
    (down, up, product)
}

#[test]
fn a_branch_is_added_before_the_activation() {
    let shapes = [
        (1, 1, 1, 1),
        (3, 5, 2, 4),
        (63, 64, 65, 32),
        (193, 700, 17, 5),
        (18, 1024, 18, 330),
    ];
    for isa in every_set() {
        for (rows, inputs, outputs, rank) in shapes {
            let (x, w, b) = (
                noise(&[1, rows, inputs], 1),
                noise(&[outputs, inputs], 2),
                noise(&[outputs], 3),
            );
            let residual = noise(&[1, rows, outputs], 4);
            let (down, up, change) = low_rank(rank, inputs, outputs);
            let expected = reference(&x, &(&w + change).unwrap(), &b).concat();
            let layer = Linear::new(&w, Some(&b)).unwrap();
            let branch = layer.branch(&down, &up).unwrap();
            for activation in ACTIVATIONS {
                let what = format!("{isa} {rows}x{inputs} to {outputs} by {rank} {activation:?}");
                let found = layer.forward_with((isa, Some(&branch)), &x, activation, Some(&residual));
                let added = expected.iter().zip(wide(&residual));
                let expected: Vec<f64> = added.map(|(y, r)| activated(activation, *y) + r).collect();
                assert_near(&what, &found.unwrap(), &expected, tolerance(isa, 4e-6));
            }
        }
        for half in [1, 15, 17, 40, 150] {
            let (x, w, b) = (
                noise(&[1, 21, 37], 1),
                noise(&[2 * half, 37], 2),
                noise(&[2 * half], 3),
            );
            let (down, up, change) = low_rank(3, 37, 2 * half);
            let changed = Linear::geglu(&(&w + change).unwrap(), Some(&b)).unwrap();
            let expected = changed
                .forward_with((isa, None), &x, Activation::None, None)
                .unwrap();
            let layer = Linear::geglu(&w, Some(&b)).unwrap();
            let branch = layer.branch(&down, &up).unwrap();
            let found = layer.forward_with((isa, Some(&branch)), &x, Activation::None, None);
            assert_near(
                &format!("{isa} half {half}"),
                &found.unwrap(),
                &wide(&expected),
                tolerance(isa, 4e-6),
            );
        }
    }
}

#[test]
fn a_row_beside_a_branch_does_not_depend_on_its_neighbours_or_on_threads() {
    for gated in [false, true] {
        let (w, b) = (noise(&[300, 500], 1), noise(&[300], 2));
        let layer = if gated {
            Linear::geglu(&w, Some(&b)).unwrap()
        } else {
            Linear::new(&w, Some(&b)).unwrap()
        };
        let (down, up, _) = low_rank(24, 500, 300);
        let branch = layer.branch(&down, &up).unwrap();
        let forward = |x: &Tensor| {
            let y = layer.forward_beside(x, Some(&branch), Activation::None, None);
            y.unwrap()
        };
        let x = noise(&[5, 77, 500], 3);
        let whole = forward(&x);
        for i in 0..5 {
            assert_same("row", &row(&whole, i), &forward(&row(&x, i)));
        }
        assert_same_on_threads(&whole, || forward(&x));
    }
}

#[test]
fn a_branch_of_another_shape_is_an_error() {
    let layer = Linear::new(&noise(&[3, 4], 1), None).unwrap();
    for (down, up) in [
        ([2, 5], [3, 2]),
        ([2, 4], [4, 2]),
        ([2, 4], [3, 1]),
        ([0, 4], [3, 0]),
    ] {
        assert!(
            layer.branch(&noise(&down, 1), &noise(&up, 2)).is_err(),
            "{down:?} {up:?}"
        );
    }
    let branch = layer.branch(&noise(&[2, 4], 1), &noise(&[3, 2], 1)).unwrap();
    let x = noise(&[2, 4], 1);
    for other in [
        Linear::new(&noise(&[6, 4], 1), None).unwrap(),
        Linear::geglu(&noise(&[6, 4], 1), None).unwrap(),
    ] {
        let refused = other.forward_beside(&x, Some(&branch), Activation::None, None);
        assert!(refused.unwrap_err().to_string().contains("another shape"));
    }
}

/// A set that splits is not f32 under another name, and a layer of few rows is: that of an image, however many there are.
#[test]
fn products_are_split_where_an_image_has_the_rows_of_a_tile() {
    let layer = Linear::new(&noise(&[50, 400], 1), None).unwrap();
    let run = |isa: Isa, x: &Tensor| {
        let y = layer.forward_with((isa, None), x, Activation::None, None);
        y.unwrap()
    };
    let splits = every_set().into_iter().filter(|isa| isa.splits());
    for isa in splits {
        for (rows, is_split) in [(1, false), (15, false), (16, true), (77, true)] {
            let x = noise(&[20, rows, 400], 2);
            let (found, plain) = (run(isa, &x), run(Isa::detect(), &x));
            let differs = wide(&found) != wide(&plain);
            assert_eq!(differs, is_split, "{isa} {rows}");
            for i in [0, 19] {
                assert_same(&format!("{isa} {rows}"), &row(&found, i), &run(isa, &row(&x, i)));
            }
        }
    }
}

#[test]
fn half_precision_weights_are_used_exactly() {
    let (x, w, b) = (noise(&[20, 400], 1), noise(&[50, 400], 2), noise(&[50], 3));
    for isa in Isa::available() {
        for dtype in [DType::F16, DType::BF16] {
            let stored = w.to_dtype(dtype).unwrap();
            let widened = stored.to_dtype(DType::F32).unwrap();
            let run = |w: &Tensor| {
                let layer = Linear::new(w, Some(&b)).unwrap();
                layer
                    .forward_with((isa, None), &x, Activation::None, None)
                    .unwrap()
            };
            assert_same(&format!("{isa} {dtype:?}"), &run(&stored), &run(&widened));
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let layer = Linear::new(&noise(&[300, 500], 1), Some(&noise(&[300], 2))).unwrap();
    let x = noise(&[5, 77, 500], 3);
    let whole = layer.forward(&x, Activation::Gelu, None).unwrap();
    for i in 0..5 {
        let alone = layer.forward(&row(&x, i), Activation::Gelu, None).unwrap();
        assert_same("row", &row(&whole, i), &alone);
    }
    assert_same_on_threads(&whole, || layer.forward(&x, Activation::Gelu, None).unwrap());
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let layer = Linear::new(&noise(&[3, 4], 1), None).unwrap();
    let refused =
        |x: &Tensor, r: Option<&Tensor>| layer.forward(x, Activation::None, r).unwrap_err().to_string();
    assert!(refused(&noise(&[2, 5], 1), None).contains("4 inputs"));
    assert!(refused(&noise(&[2, 4], 1), Some(&noise(&[2, 4], 1))).contains("residual"));
    assert!(refused(&noise(&[4, 2], 1).t().unwrap(), None).contains("not contiguous"));
    assert!(Linear::geglu(&noise(&[3, 4], 1), None).is_err());
    assert!(Linear::new(&noise(&[3, 0], 1), None).is_err());
    assert!(Linear::new(&noise(&[3, 4], 1), Some(&noise(&[4], 1))).is_err());
    let empty = layer.forward(&noise(&[0, 4], 1), Activation::None, None).unwrap();
    assert_eq!(empty.dims(), [0, 3]);
}

fn to_bf16(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()
}

/// Odd shapes, with and without gates and a branch: what f32 makes of rounded numbers, but for the order of sums.
#[test]
fn layers_in_bf16_equal_the_reference_of_rounded_numbers() {
    let shapes = [
        (1, 1, 1, 1),
        (3, 5, 2, 4),
        (7, 31, 33, 3),
        (63, 64, 65, 32),
        (193, 700, 17, 5),
        (14, 1024, 18, 330),
    ];
    for isa in with_pairs() {
        for (rows, inputs, outputs, rank) in shapes {
            let (x, w, b) = (
                noise(&[rows, inputs], 1),
                noise(&[outputs, inputs], 2),
                noise(&[outputs], 3),
            );
            let residual = noise(&[rows, outputs], 4);
            let expected = reference(&to_bf16(&x), &to_bf16(&w), &b).concat();
            let layer = Linear::in_bf16(&w, Some(&b), false).unwrap();
            let what = format!("{isa} {rows}x{inputs} to {outputs}");
            for activation in ACTIVATIONS {
                let found = layer
                    .forward_with((isa, None), &x, activation, Some(&residual))
                    .unwrap();
                let added = expected.iter().zip(wide(&residual));
                let expected: Vec<f64> = added.map(|(y, r)| activated(activation, *y) + r).collect();
                assert_near(&what, &found, &expected, 2e-6);
                let by_reference = layer
                    .forward_with((isa.by_reference(), None), &x, activation, Some(&residual))
                    .unwrap();
                assert_same(&what, &found, &by_reference);
            }
            let (down, up, change) = low_rank(rank, inputs, outputs);
            let branch = layer.branch(&down, &up).unwrap();
            let found = layer
                .forward_with((isa, Some(&branch)), &x, Activation::None, None)
                .unwrap();
            let expected = reference(&x, &(&w + change).unwrap(), &b).concat();
            assert_near(&what, &found, &expected, 2e-2);
        }
        for half in [1, 15, 16, 17, 40, 150] {
            let (x, w, b) = (
                to_bf16(&noise(&[9, 37], 1)),
                to_bf16(&noise(&[2 * half, 37], 2)),
                noise(&[2 * half], 3),
            );
            let forward = |layer: &Linear| {
                let found = layer.forward_with((isa, None), &x, Activation::None, None);
                found.unwrap()
            };
            let expected = forward(&Linear::geglu(&w, Some(&b)).unwrap());
            let found = forward(&Linear::in_bf16(&w, Some(&b), true).unwrap());
            let what = format!("{isa} half {half}");
            assert_near(&what, &found, &wide(&expected), 1e-5);
        }
    }
}

#[test]
fn a_row_in_bf16_does_not_depend_on_its_neighbours_or_on_threads() {
    let (w, b) = (noise(&[300, 500], 1), noise(&[300], 2));
    for isa in with_pairs() {
        for gated in [false, true] {
            let layer = Linear::in_bf16(&w, Some(&b), gated).unwrap();
            let (down, up, _) = low_rank(24, 500, 300);
            let branch = layer.branch(&down, &up).unwrap();
            let forward = |x: &Tensor| {
                let y = layer.forward_with((isa, Some(&branch)), x, Activation::None, None);
                y.unwrap()
            };
            let x = noise(&[5, 77, 500], 3);
            let whole = forward(&x);
            for i in 0..5 {
                assert_same("row", &row(&whole, i), &forward(&row(&x, i)));
            }
            assert_same_on_threads(&whole, || forward(&x));
        }
    }
}

/// Weights that were packed for a unit which the chosen set lacks.
#[test]
fn without_a_unit_a_layer_in_bf16_multiplies_its_weights_by_f32() {
    for isa in Isa::available().into_iter().filter(|isa| isa.pairs().is_none()) {
        for inputs in [1, 37, 400] {
            let (x, w) = (noise(&[20, inputs], 1), noise(&[50, inputs], 2));
            let run = |layer: Linear| {
                let y = layer.forward_with((isa, None), &x, Activation::None, None);
                y.unwrap()
            };
            let rounded = run(Linear::new(&to_bf16(&w), None).unwrap());
            let found = run(Linear::in_bf16(&w, None, false).unwrap());
            assert_same(&format!("{isa} {inputs}"), &found, &rounded);
        }
    }
}
