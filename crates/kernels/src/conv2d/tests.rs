//! Convolutions against an f64 reference, pixel by pixel, on odd shapes and every instruction set of the machine.

use candle_core::{DType, Tensor};

use super::algorithm::{ConvAlgorithm, Factors, WinogradVariant};
use super::{Conv2d, Conv2dOp, ConvFusion, Padding};
use crate::isa::Isa;
use crate::norm::GroupNorm;
use crate::packed::{Packed, Stored};
use crate::pairs::Form;
use crate::testing::{
    assert_near, assert_same, assert_same_on_threads, every_set, noise, row, wide, with_pairs,
};

/// The convolution in f64, pixel by pixel.
fn reference(x: &Tensor, weight: &Tensor, bias: &Tensor, how: How) -> Vec<f64> {
    let (b, h, w, ci) = x.dims4().unwrap();
    let (co, ..) = weight.dims4().unwrap();
    let (stride, padding) = how;
    let side = |n: usize| side(n, how);
    let (x, weight, bias) = (wide(x), wide(weight), wide(bias));
    let mut out = Vec::new();
    for row in 0..b {
        for y in 0..side(h) {
            for xx in 0..side(w) {
                for o in 0..co {
                    let mut sum = bias[o];
                    for tap in 0..9 {
                        let at = |p: usize, d: usize, n: usize| {
                            (p * stride + d).checked_sub(padding.before).filter(|&p| p < n)
                        };
                        if let (Some(sy), Some(sx)) = (at(y, tap / 3, h), at(xx, tap % 3, w)) {
                            let pixel = &x[((row * h + sy) * w + sx) * ci..][..ci];
                            let kernel = weight[o * ci * 9..].iter().skip(tap).step_by(9);
                            sum += pixel.iter().zip(kernel).map(|(a, b)| a * b).sum::<f64>();
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

/// Height or width of the result.
fn side(n: usize, (stride, padding): How) -> usize {
    (n + padding.before + padding.after - 3) / stride + 1
}

fn forward((conv, way): (&Conv2d, Way), isa: Isa, x: &Tensor, fusion: ConvFusion<'_>) -> Tensor {
    x.apply_op1_no_bwd(&Conv2dOp {
        conv,
        variant: way.1,
        fusion,
        isa,
    })
    .unwrap()
}

/// How a layer is computed, and by which variant of Winograd's method where that is not left to the size.
type Way = (ConvAlgorithm, Option<WinogradVariant>);

/// A layer that is computed this way, instead of the one that would be chosen.
fn conv_by((algorithm, _): Way, how: How, weight: &Tensor, bias: &Tensor) -> Conv2d {
    let mut conv = Conv2d::new(weight, Some(bias), how.0, how.1).unwrap();
    let columns: Vec<usize> = (0..conv.outputs).collect();
    let stored = Stored {
        weight,
        form: Form::Stored,
    };
    conv.packed = Packed::new(stored, 9 * conv.inputs, algorithm.order(conv.inputs), &columns).unwrap();
    conv.algorithm = algorithm;
    conv
}

/// Stride and padding.
type How = (usize, Padding);

const SAME: How = (1, Padding::SAME);
/// As in the UNet, and as in the autoencoder.
const HALVED: How = (2, Padding::SAME);
const HALVED_AFTER: How = (2, Padding { before: 0, after: 1 });

/// Every way to compute a layer, and how far it may be from the reference.
const WAYS: [(Way, How, f64); 8] = [
    ((ConvAlgorithm::Direct, None), SAME, 2e-6),
    ((ConvAlgorithm::Winograd, Some(WinogradVariant::F2)), SAME, 3e-6),
    ((ConvAlgorithm::Winograd, Some(WinogradVariant::F4)), SAME, 6e-6),
    ((ConvAlgorithm::Winograd, Some(WinogradVariant::F6)), SAME, 2e-5),
    ((ConvAlgorithm::Direct, None), HALVED, 2e-6),
    ((ConvAlgorithm::Direct, None), HALVED_AFTER, 2e-6),
    (
        (ConvAlgorithm::Winograd, Some(WinogradVariant::Strided)),
        HALVED,
        3e-6,
    ),
    (
        (ConvAlgorithm::Winograd, Some(WinogradVariant::Strided)),
        HALVED_AFTER,
        3e-6,
    ),
];

/// How far a set may be from the reference that may be `exact` from it in f32: transforms multiply what split numbers lose as
/// they do rounding errors.
fn tolerance(isa: Isa, exact: f64) -> f64 {
    if isa.splits() { 20.0 * exact + 2e-5 } else { exact }
}

#[test]
fn every_variant_equals_the_reference_on_odd_shapes() {
    let shapes = [
        (1, 2, 2, 1, 1),
        (1, 2, 3, 4, 5),
        (2, 4, 4, 16, 16),
        (1, 5, 9, 20, 3),
        (3, 7, 6, 33, 40),
        (1, 13, 70, 64, 17),
        (1, 9, 11, 150, 31),
        (2, 16, 8, 40, 33),
        (1, 34, 67, 33, 20),
    ];
    for isa in every_set() {
        for (b, h, w, ci, co) in shapes {
            let (x, weight, bias) = (
                noise(&[b, h, w, ci], 1),
                noise(&[co, ci, 3, 3], 2),
                noise(&[co], 3),
            );
            for how in [SAME, HALVED, HALVED_AFTER] {
                let expected = reference(&x, &weight, &bias, how);
                for (way, _, tolerance) in WAYS.into_iter().filter(|way| way.1 == how) {
                    let conv = conv_by(way, how, &weight, &bias);
                    let found = forward((&conv, way), isa, &x, ConvFusion::default());
                    assert_eq!(found.dims(), [b, side(h, how), side(w, how), co]);
                    assert_near(
                        &format!("{isa} {way:?} {how:?} {:?}", x.dims()),
                        &found,
                        &expected,
                        self::tolerance(isa, tolerance),
                    );
                }
            }
        }
    }
}

#[test]
fn a_single_pixel_and_a_stride_above_two_equal_the_reference() {
    for isa in every_set() {
        for (how, h, w) in [(SAME, 1, 1), (HALVED, 1, 1), ((3, Padding::SAME), 7, 8)] {
            let (x, weight, bias) = (
                noise(&[2, h, w, 20], 1),
                noise(&[33, 20, 3, 3], 2),
                noise(&[33], 3),
            );
            let conv = Conv2d::new(&weight, Some(&bias), how.0, how.1).unwrap();
            let found = forward((&conv, (conv.algorithm, None)), isa, &x, ConvFusion::default());
            let expected = reference(&x, &weight, &bias, how);
            assert_near(&format!("{isa} {how:?}"), &found, &expected, tolerance(isa, 6e-6));
        }
    }
}

#[test]
fn what_surrounds_a_convolution_equals_the_same_steps_one_by_one() {
    let (b, h, w, ci, co) = (2, 6, 7, 24, 20);
    let (x, weight, bias) = (
        noise(&[b, h, w, ci], 1),
        noise(&[co, ci, 3, 3], 2),
        noise(&[co], 3),
    );
    let row_bias = noise(&[b, 1, co], 4);
    let norm = GroupNorm::new(&noise(&[ci], 5), &noise(&[ci], 6), 4, 1e-5).unwrap();
    for isa in every_set() {
        let norm = norm.normalisation_with(isa, &x).unwrap().with_silu();
        let normalised = norm.apply(&x).unwrap();
        for (way, how, tolerance) in WAYS {
            let conv = conv_by(way, how, &weight, &bias);
            for upsample in [None, Some((12, 14)), Some((11, 13)), Some((13, 15))] {
                let enlarged = match upsample {
                    None => normalised.clone(),
                    Some((h, w)) => nearest(&normalised, h, w),
                };
                let (_, h, w, _) = enlarged.dims4().unwrap();
                let (oh, ow) = (side(h, how), side(w, how));
                let residual = noise(&[b, oh, ow, co], 7);
                let fusion = ConvFusion {
                    norm: Some(&norm),
                    upsample,
                    row_bias: Some(&row_bias),
                    residual: Some(&residual),
                };
                let found = forward((&conv, way), isa, &x, fusion);
                let plain = reference(&enlarged, &weight, &bias, how);
                let (residual, row_bias) = (wide(&residual), wide(&row_bias));
                let expected: Vec<f64> = (0..plain.len())
                    .map(|i| plain[i] + row_bias[i / (oh * ow * co) * co + i % co] + residual[i])
                    .collect();
                assert_near(
                    &format!("{isa} {way:?} {how:?} {upsample:?}"),
                    &found,
                    &expected,
                    self::tolerance(isa, tolerance),
                );
            }
        }
    }
}

#[test]
fn a_doubled_image_equals_one_that_is_enlarged_first() {
    let way = (ConvAlgorithm::Winograd, Some(WinogradVariant::Doubled));
    for isa in every_set() {
        for (b, h, w, ci, co) in [
            (1, 1, 1, 1, 1),
            (2, 4, 5, 20, 33),
            (1, 6, 11, 130, 16),
            (3, 14, 10, 17, 40),
        ] {
            let (x, weight, bias) = (
                noise(&[b, h, w, ci], 1),
                noise(&[co, ci, 3, 3], 2),
                noise(&[co], 3),
            );
            let residual = noise(&[b, 2 * h, 2 * w, co], 4);
            let fusion = ConvFusion {
                upsample: Some((2 * h, 2 * w)),
                residual: Some(&residual),
                ..ConvFusion::default()
            };
            let found = forward((&conv_by(way, SAME, &weight, &bias), way), isa, &x, fusion);
            let plain = reference(&nearest(&x, 2 * h, 2 * w), &weight, &bias, SAME);
            let expected: Vec<f64> = plain.iter().zip(wide(&residual)).map(|(a, b)| a + b).collect();
            assert_near(
                &format!("{isa} {:?}", x.dims()),
                &found,
                &expected,
                tolerance(isa, 6e-6),
            );
        }
    }
}

#[test]
fn a_row_of_doubled_images_does_not_depend_on_its_neighbours_or_on_threads() {
    let conv = Conv2d::new(
        &noise(&[40, 70, 3, 3], 1),
        Some(&noise(&[40], 2)),
        1,
        Padding::SAME,
    )
    .unwrap();
    let x = noise(&[3, 34, 30, 70], 3);
    let fusion = ConvFusion {
        upsample: Some((68, 60)),
        ..ConvFusion::default()
    };
    let whole = conv.forward(&x, fusion).unwrap();
    for i in 0..3 {
        assert_same(
            "row",
            &row(&whole, i),
            &conv.forward(&row(&x, i), fusion).unwrap(),
        );
    }
    assert_same_on_threads(&whole, || conv.forward(&x, fusion).unwrap());
}

fn nearest(x: &Tensor, h: usize, w: usize) -> Tensor {
    let turned = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    let enlarged = turned.upsample_nearest2d(h, w).unwrap();
    enlarged.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let (weight, bias) = (noise(&[40, 70, 3, 3], 1), noise(&[40], 2));
    let x = noise(&[5, 9, 30, 70], 3);
    for (way, how, _) in WAYS {
        let conv = conv_by(way, how, &weight, &bias);
        for isa in [Isa::detect()].into_iter().chain(Isa::emulated()) {
            let run = |x: &Tensor| forward((&conv, way), isa, x, ConvFusion::default());
            let whole = run(&x);
            for i in 0..5 {
                assert_same(&format!("{isa} row"), &row(&whole, i), &run(&row(&x, i)));
            }
            assert_same_on_threads(&whole, || run(&x));
        }
    }
}

#[test]
fn how_tiles_are_cut_into_blocks_and_chunks_does_not_change_a_row() {
    // Images of one to four tiles, whose weights are transformed in registers; several of them together are too many
    // for that, and then for small blocks of channels. The last two of stride 1 do not fit into one chunk
    // together, of which the very last is summed in parts; with stride 2, one does not fit and one is cut by itself.
    let images = [
        (SAME, 4, 4, 70),
        (SAME, 8, 3, 70),
        (SAME, 4, 12, 70),
        (SAME, 8, 8, 33),
        (SAME, 8, 8, 70),
        (SAME, 24, 24, 300),
        (SAME, 30, 30, 300),
        (HALVED_AFTER, 8, 8, 70),
        (HALVED, 15, 8, 70),
        (HALVED, 8, 20, 33),
        (HALVED_AFTER, 33, 30, 300),
        (HALVED, 80, 66, 70),
    ];
    for isa in every_set() {
        for (how, h, w, channels) in images {
            let (weight, bias) = (noise(&[20, channels, 3, 3], 1), noise(&[20], 2));
            let conv = Conv2d::new(&weight, Some(&bias), how.0, how.1).unwrap();
            let way = (ConvAlgorithm::Winograd, None);
            let x = noise(&[18, h, w, channels], 3);
            let whole = forward((&conv, way), isa, &x, ConvFusion::default());
            assert_same_on_threads(&whole, || forward((&conv, way), isa, &x, ConvFusion::default()));
            for count in [1, 2, 5] {
                let part = x.narrow(0, 3, count).unwrap();
                let found = forward((&conv, way), isa, &part, ConvFusion::default());
                let expected = whole.narrow(0, 3, count).unwrap().contiguous().unwrap();
                assert_same(&format!("{isa} {how:?} {count} of {h}x{w}"), &expected, &found);
            }
        }
    }
}

#[test]
fn a_result_too_large_for_the_caches_has_the_bits_of_a_small_one() {
    // 64 MiB, from where on results are written past the caches, and a corner of the same image, of whole tiles.
    let (side, corner) = (1024, 66);
    let (x, residual) = (noise(&[1, side, side, 16], 1), noise(&[1, side, side, 16], 2));
    let cut = |x: &Tensor, side: usize| {
        let part = x.narrow(1, 0, side).unwrap().narrow(2, 0, side).unwrap();
        part.contiguous().unwrap()
    };
    let conv = Conv2d::new(
        &noise(&[16, 16, 3, 3], 3),
        Some(&noise(&[16], 4)),
        1,
        Padding::SAME,
    )
    .unwrap();
    let run = |side: usize| {
        let residual = cut(&residual, side);
        let fusion = ConvFusion {
            residual: Some(&residual),
            ..ConvFusion::default()
        };
        conv.forward(&cut(&x, side), fusion).unwrap()
    };
    // The corner's last line of pixels has other neighbours.
    assert_same(
        "corner",
        &cut(&run(side), corner - 1),
        &cut(&run(corner), corner - 1),
    );
}

#[test]
fn half_precision_weights_are_used_exactly() {
    let (x, weight, bias) = (
        noise(&[1, 8, 8, 70], 1),
        noise(&[40, 70, 3, 3], 2),
        noise(&[40], 3),
    );
    for isa in Isa::available() {
        for (way, how, _) in WAYS {
            for dtype in [DType::F16, DType::BF16] {
                let stored = weight.to_dtype(dtype).unwrap();
                let widened = stored.to_dtype(DType::F32).unwrap();
                let run = |w: &Tensor| {
                    let conv = conv_by(way, how, w, &bias);
                    forward((&conv, way), isa, &x, ConvFusion::default())
                };
                assert_same(
                    &format!("{isa} {way:?} {how:?} {dtype:?}"),
                    &run(&stored),
                    &run(&widened),
                );
            }
        }
    }
}

#[test]
fn the_algorithm_depends_on_the_layer_and_the_image_only() {
    let algorithms = [
        (320, SAME, ConvAlgorithm::Winograd),
        (640, HALVED, ConvAlgorithm::Winograd),
        (512, HALVED_AFTER, ConvAlgorithm::Winograd),
        (320, (1, HALVED_AFTER.1), ConvAlgorithm::Direct),
        (1280, HALVED, ConvAlgorithm::Direct),
        (4, HALVED, ConvAlgorithm::Direct),
        (320, (3, Padding::SAME), ConvAlgorithm::Direct),
        (4, SAME, ConvAlgorithm::Direct),
    ];
    for (inputs, how, expected) in algorithms {
        let found = ConvAlgorithm::choose(inputs, how.0, how.1);
        assert_eq!(found, expected, "{inputs} channels, {how:?}");
    }
    // Stride, the image, and the image after upsampling.
    let variants = [
        (1, (2, 2), (2, 2), WinogradVariant::F2),
        (1, (1, 1), (2, 2), WinogradVariant::F2),
        (1, (1, 3), (1, 3), WinogradVariant::F4),
        (1, (8, 8), (16, 16), WinogradVariant::F4),
        (1, (32, 32), (64, 64), WinogradVariant::Doubled),
        (1, (32, 32), (33, 32), WinogradVariant::F4),
        (1, (32, 32), (64, 63), WinogradVariant::F6),
        (1, (24, 24), (24, 24), WinogradVariant::F4),
        (1, (32, 32), (32, 32), WinogradVariant::F4),
        (1, (30, 30), (30, 30), WinogradVariant::F6),
        (1, (48, 48), (48, 48), WinogradVariant::F6),
        (1, (56, 56), (56, 56), WinogradVariant::F4),
        (1, (57, 57), (57, 57), WinogradVariant::F6),
        (1, (64, 64), (64, 64), WinogradVariant::F6),
        (1, (256, 256), (512, 512), WinogradVariant::Doubled),
        (2, (8, 8), (8, 8), WinogradVariant::Strided),
        (2, (32, 32), (64, 64), WinogradVariant::Strided),
    ];
    for (stride, source, input, expected) in variants {
        let found = WinogradVariant::choose(stride, source, input, Factors::F32);
        assert_eq!(found, expected, "stride {stride}, {source:?} to {input:?}");
        if expected == WinogradVariant::F6 {
            let split = WinogradVariant::choose(stride, source, input, Factors::Split);
            assert_eq!(split, WinogradVariant::F4);
            let rounded = WinogradVariant::choose(stride, source, input, Factors::Rounded);
            assert_eq!(rounded, WinogradVariant::F2);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let conv = Conv2d::new(&noise(&[3, 4, 3, 3], 1), Some(&noise(&[3], 2)), 1, Padding::SAME).unwrap();
    let x = noise(&[1, 5, 5, 4], 3);
    let refused = |x: &Tensor, fusion: ConvFusion<'_>| conv.forward(x, fusion).unwrap_err().to_string();
    assert!(refused(&noise(&[1, 5, 5, 3], 1), ConvFusion::default()).contains("4 channels"));
    let fusion = ConvFusion {
        upsample: Some((7, 4)),
        ..ConvFusion::default()
    };
    assert!(refused(&x, fusion).contains("cannot enlarge"));
    let residual = noise(&[1, 5, 5, 4], 1);
    let fusion = ConvFusion {
        residual: Some(&residual),
        ..ConvFusion::default()
    };
    assert!(refused(&x, fusion).contains("residual"));
    let row_bias = noise(&[2, 1, 3], 1);
    let fusion = ConvFusion {
        row_bias: Some(&row_bias),
        ..ConvFusion::default()
    };
    assert!(refused(&x, fusion).contains("row bias"));
    assert!(Conv2d::new(&noise(&[3, 4, 1, 1], 1), Some(&noise(&[3], 2)), 1, Padding::SAME).is_err());
}

/// Split products are other numbers than those of f32; without this, a set that computes as any other would pass all tests.
#[test]
fn convolutions_are_split_where_a_set_splits() {
    let (weight, bias) = (noise(&[40, 70, 3, 3], 1), noise(&[40], 2));
    let x = noise(&[1, 44, 46, 70], 3);
    for (way, how, _) in WAYS {
        let conv = conv_by(way, how, &weight, &bias);
        let run = |isa: Isa| wide(&forward((&conv, way), isa, &x, ConvFusion::default()));
        let plain = run(Isa::detect());
        for isa in Isa::emulated() {
            assert_eq!(run(isa) != plain, isa.splits(), "{isa} {way:?}");
        }
    }
}

/// AMX's own instructions, where the machine has them.
#[test]
fn split_convolutions_have_the_bits_of_the_reference() {
    let (weight, bias) = (noise(&[40, 70, 3, 3], 1), noise(&[40], 2));
    let x = noise(&[2, 21, 30, 70], 3);
    for isa in Isa::available().into_iter().filter(|isa| isa.splits()) {
        for (way, how, _) in WAYS {
            let conv = conv_by(way, how, &weight, &bias);
            let run = |isa: Isa| forward((&conv, way), isa, &x, ConvFusion::default());
            assert_same(&format!("{isa} {way:?}"), &run(isa), &run(isa.by_reference()));
        }
    }
}

/// The root of the mean square of the differences over that of what is expected.
#[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
fn relative_rms(found: &Tensor, expected: &[f64]) -> f64 {
    let mean = |squares: f64| squares / expected.len() as f64;
    let off = wide(found).into_iter().zip(expected);
    let off = off.map(|(f, e)| (f - e).powi(2)).sum();
    (mean(off) / mean(expected.iter().map(|e| e * e).sum())).sqrt()
}

/// A layer that is computed directly is of rounded numbers for each unit, F(2x2) of rounded tiles for the one that multiplies
/// sixteen pairs at once, and the other layers stay with f32.
#[test]
fn in_bf16_what_is_multiplied_is_rounded_where_that_is_less_work() {
    let layers = [
        (SAME, (21, 30), 70, 40),
        (HALVED, (21, 30), 70, 40),
        (HALVED, (7, 8), 1024, 20),
    ];
    for (how, (h, w), inputs, outputs) in layers {
        let (weight, bias) = (noise(&[outputs, inputs, 3, 3], 1), noise(&[outputs], 2));
        let x = noise(&[3, h, w, inputs], 3);
        let conv = Conv2d::in_bf16(&weight, Some(&bias), how.0, how.1).unwrap();
        let plain = Conv2d::new(&weight, Some(&bias), how.0, how.1).unwrap();
        let expected = reference(&x, &weight, &bias, how);
        for isa in with_pairs() {
            let what = format!("{isa} {how:?} {inputs}");
            let run = |conv: &Conv2d, isa: Isa, x: &Tensor| {
                forward((conv, (conv.algorithm, None)), isa, x, ConvFusion::default())
            };
            let found = run(&conv, isa, &x);
            let error = relative_rms(&found, &expected);
            println!("{what}: {error:.2e}");
            let is_direct = conv.algorithm == ConvAlgorithm::Direct;
            let rounds = is_direct || how == SAME && isa.splits();
            let range = match (rounds, is_direct) {
                (false, _) => 0.0..2e-5,
                (true, true) => 1e-3..3e-3,
                (true, false) => 2e-3..5e-3,
            };
            assert!(range.contains(&error), "{what}: {error:.2e}");
            assert_eq!(wide(&found) != wide(&run(&plain, isa, &x)), rounds, "{what}");
            assert_same(&what, &found, &run(&conv, isa.by_reference(), &x));
            for i in 0..3 {
                assert_same("row", &row(&found, i), &run(&conv, isa, &row(&x, i)));
            }
            assert_same_on_threads(&found, || run(&conv, isa, &x));
        }
    }
}

#[test]
fn a_layer_of_few_channels_or_an_image_of_few_tiles_is_not_rounded() {
    for (side, inputs, outputs) in [(32, 4, 20), (32, 3, 20), (6, 70, 20), (2, 70, 20)] {
        let (weight, x) = (
            noise(&[outputs, inputs, 3, 3], 1),
            noise(&[1, side, side, inputs], 2),
        );
        let conv = Conv2d::in_bf16(&weight, None, 1, Padding::SAME).unwrap();
        let plain = Conv2d::new(&weight, None, 1, Padding::SAME).unwrap();
        for isa in with_pairs() {
            let run = |conv: &Conv2d| forward((conv, (conv.algorithm, None)), isa, &x, ConvFusion::default());
            assert_same(&format!("{isa} {side} {inputs}"), &run(&conv), &run(&plain));
        }
    }
}
