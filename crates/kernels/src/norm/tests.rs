//! Norms against an f64 reference on odd shapes and every instruction set of the machine.

use candle_core::Tensor;

use super::{GroupNorm, LayerNorm};
use crate::isa::Isa;
use crate::testing::{assert_near, assert_same, assert_same_on_threads, noise, row, wide};

fn mean_and_variance(x: &[f64]) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    (mean, x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count)
}

/// Group norm and SiLU in f64.
fn reference(x: &Tensor, (weight, bias): (&Tensor, &Tensor), groups: usize, silu: bool) -> Vec<f64> {
    let (b, h, w, c) = x.dims4().unwrap();
    let (x, weight, bias) = (wide(x), wide(weight), wide(bias));
    let width = c / groups;
    let mut out = vec![0.0; x.len()];
    for row in 0..b {
        for group in 0..groups {
            let places: Vec<usize> = (0..h * w)
                .flat_map(|p| (0..width).map(move |i| (row * h * w + p) * c + group * width + i))
                .collect();
            let values: Vec<f64> = places.iter().map(|&i| x[i]).collect();
            let (mean, variance) = mean_and_variance(&values);
            for (place, value) in places.into_iter().zip(values) {
                let y = (value - mean) / (variance + 1e-5).sqrt() * weight[place % c] + bias[place % c];
                out[place] = if silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
    }
    out
}

#[test]
fn group_norm_equals_the_reference_on_odd_shapes() {
    for isa in Isa::available() {
        for (b, h, w, c, groups) in [
            (1, 1, 1, 2, 1),
            (2, 3, 5, 12, 3),
            (1, 40, 41, 30, 5),
            (2, 33, 1, 64, 32),
            (1, 70, 70, 48, 8),
        ] {
            // A mean far from zero, where a careless variance would lose its digits.
            let x = ((noise(&[b, h, w, c], 1) * 3.0).unwrap() + 50.0).unwrap();
            let (weight, bias) = (noise(&[c], 2), noise(&[c], 3));
            let norm = GroupNorm::new(&weight, &bias, groups, 1e-5).unwrap();
            for silu in [false, true] {
                let found = norm.normalisation_with(isa, &x).unwrap();
                let found = if silu { found.with_silu() } else { found };
                let found = found.apply(&x).unwrap();
                let expected = reference(&x, (&weight, &bias), groups, silu);
                assert_near(&format!("{isa} {:?} {silu}", x.dims()), &found, &expected, 4e-6);
            }
        }
    }
}

#[test]
fn layer_norm_equals_the_reference_on_odd_widths() {
    for isa in Isa::available() {
        for width in [1, 7, 16, 33, 320] {
            let x = ((noise(&[3, 40, width], 1) * 2.0).unwrap() + 5.0).unwrap();
            let (weight, bias) = (noise(&[width], 2), noise(&[width], 3));
            let found = LayerNorm::new(&weight, &bias, 1e-5)
                .unwrap()
                .forward_with(isa, &x)
                .unwrap();
            let (weight, bias) = (wide(&weight), wide(&bias));
            let expected: Vec<f64> = wide(&x)
                .chunks(width)
                .flat_map(|x| {
                    let (mean, variance) = mean_and_variance(x);
                    let scaled = x.iter().map(move |v| (v - mean) / (variance + 1e-5).sqrt());
                    scaled
                        .zip(weight.iter().zip(&bias))
                        .map(|(y, (w, b))| y * w + b)
                        .collect::<Vec<_>>()
                })
                .collect();
            assert_near(&format!("{isa} {width}"), &found, &expected, 4e-6);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let norm = GroupNorm::new(&noise(&[64], 1), &noise(&[64], 2), 8, 1e-5).unwrap();
    let x = noise(&[3, 50, 60, 64], 3);
    let run = |x: &Tensor| norm.normalisation(x).unwrap().with_silu().apply(x).unwrap();
    let whole = run(&x);
    for i in 0..3 {
        assert_same("row", &row(&whole, i), &run(&row(&x, i)));
    }
    assert_same_on_threads(&whole, || run(&x));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    assert!(GroupNorm::new(&noise(&[6], 1), &noise(&[6], 1), 4, 1e-5).is_err());
    assert!(GroupNorm::new(&noise(&[6], 1), &noise(&[5], 1), 3, 1e-5).is_err());
    let norm = GroupNorm::new(&noise(&[6], 1), &noise(&[6], 1), 3, 1e-5).unwrap();
    assert!(norm.normalisation(&noise(&[1, 2, 2, 5], 1)).is_err());
    let made = norm.normalisation(&noise(&[1, 2, 2, 6], 1)).unwrap();
    assert!(made.apply(&noise(&[2, 2, 2, 6], 1)).is_err());
    let norm = LayerNorm::new(&noise(&[6], 1), &noise(&[6], 1), 1e-5).unwrap();
    assert!(norm.forward(&noise(&[2, 5], 1)).is_err());
}
