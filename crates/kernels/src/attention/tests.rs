//! Attention against an f64 reference, query by query, on odd shapes and every instruction set of the machine.

use candle_core::Tensor;

use super::{AttentionOp, AttnMask, attend};
use crate::isa::Isa;
use crate::testing::{assert_near, assert_same, assert_same_on_threads, noise, row, wide};
use crate::testing::{every_set, tolerance, with_pairs};

/// Attention in f64, query by query.
fn reference(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: AttnMask) -> Vec<f64> {
    let (b, t, width) = q.dims3().unwrap();
    let s = k.dim(1).unwrap();
    let d = width / heads;
    let (q, k, v) = (wide(q), wide(k), wide(v));
    let mut out = vec![0.0; q.len()];
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let scale = (d as f64).sqrt().recip();
    for row in 0..b {
        for head in 0..heads {
            for i in 0..t {
                let at = |token: usize, tokens: usize| (row * tokens + token) * width + head * d;
                let seen = if mask == AttnMask::Causal { i + 1 } else { s };
                let score = |j: usize| (0..d).map(|x| q[at(i, t) + x] * k[at(j, s) + x]).sum::<f64>() * scale;
                let scores: Vec<f64> = (0..seen).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|x| (x - most).exp()).sum();
                for (j, score) in scores.iter().enumerate() {
                    let weight = (score - most).exp() / total;
                    for x in 0..d {
                        out[at(i, t) + x] += weight * v[at(j, s) + x];
                    }
                }
            }
        }
    }
    out
}

#[test]
fn every_variant_equals_the_reference_on_odd_shapes() {
    let shapes = [
        (1, 1, 1, 1, 1),
        (2, 5, 7, 3, 4),
        (1, 49, 77, 2, 40),
        (1, 100, 530, 1, 8),
        (1, 13, 1040, 2, 12),
        (2, 64, 64, 2, 80),
        (1, 20, 33, 1, 160),
        // Keys in two strips, the second of them narrower, and in two alike.
        (1, 18, 150, 2, 300),
        (1, 33, 140, 1, 512),
    ];
    for isa in every_set() {
        for (b, t, s, heads, d) in shapes {
            let q = (noise(&[b, t, heads * d], 1) * 4.0).unwrap();
            let (k, v) = (noise(&[b, s, heads * d], 2), noise(&[b, s, heads * d], 3));
            let op = AttentionOp {
                heads,
                mask: AttnMask::None,
                in_bf16: false,
                isa,
            };
            let found = q.apply_op3_no_bwd(&k, &v, &op).unwrap();
            let expected = reference(&q, &k, &v, heads, AttnMask::None);
            assert_near(
                &format!("{isa} {t} over {s}, {heads} of {d}"),
                &found,
                &expected,
                tolerance(isa, 2e-6),
            );
        }
    }
}

#[test]
fn a_causal_mask_hides_what_comes_later() {
    for isa in every_set() {
        for t in [1, 16, 77, 600] {
            let (q, k, v) = (
                noise(&[2, t, 24], 1),
                noise(&[2, t, 24], 2),
                noise(&[2, t, 24], 3),
            );
            let op = AttentionOp {
                heads: 2,
                mask: AttnMask::Causal,
                in_bf16: false,
                isa,
            };
            let found = q.apply_op3_no_bwd(&k, &v, &op).unwrap();
            let expected = reference(&q, &k, &v, 2, AttnMask::Causal);
            assert_near(&format!("{isa} {t}"), &found, &expected, tolerance(isa, 2e-6));
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let (k, v) = (noise(&[1, 700, 16], 2), noise(&[1, 700, 16], 3));
    // Scores that are known to be in range, that may not be, some of each panel that are not, and none that is.
    for (scale, tolerance) in [(20.0, 2e-6), (40.0, 5e-6), (1e4, 1e-3), (1e9, 1e-3)] {
        let q = (noise(&[1, 35, 16], 1) * scale).unwrap();
        let expected = reference(&q, &k, &v, 1, AttnMask::None);
        for isa in Isa::available() {
            let op = AttentionOp {
                heads: 1,
                mask: AttnMask::None,
                in_bf16: false,
                isa,
            };
            let found = q.apply_op3_no_bwd(&k, &v, &op).unwrap();
            assert_near(&format!("{isa} {scale}"), &found, &expected, tolerance);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let (q, k, v) = (
        noise(&[3, 90, 80], 1),
        noise(&[3, 600, 80], 2),
        noise(&[3, 600, 80], 3),
    );
    let whole = attend(&q, &k, &v, 2, AttnMask::None).unwrap();
    for i in 0..3 {
        let alone = attend(&row(&q, i), &row(&k, i), &row(&v, i), 2, AttnMask::None).unwrap();
        assert_same("row", &row(&whole, i), &alone);
    }
    assert_same_on_threads(&whole, || attend(&q, &k, &v, 2, AttnMask::None).unwrap());
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = noise(&[2, 4, 6], 1);
    assert!(attend(&x, &x, &x, 4, AttnMask::None).is_err());
    assert!(attend(&x, &noise(&[1, 4, 6], 1), &x, 2, AttnMask::None).is_err());
    assert!(
        attend(
            &x,
            &noise(&[2, 5, 6], 1),
            &noise(&[2, 5, 6], 1),
            2,
            AttnMask::Causal
        )
        .is_err()
    );
}

/// What f32 makes of it, within what rounding to eight bits loses; and the bits of each unit's own reference.
#[test]
fn attention_in_bf16_is_near_and_every_unit_gives_the_bits_of_its_reference() {
    let shapes = [
        (1, 1, 1, 1, 1),
        (2, 5, 7, 3, 4),
        (1, 49, 77, 2, 40),
        (1, 100, 530, 1, 8),
        (2, 64, 64, 2, 80),
        (1, 18, 150, 2, 300),
        (1, 33, 140, 1, 512),
    ];
    for (b, t, s, heads, d) in shapes {
        let (q, k, v) = (
            noise(&[b, t, heads * d], 1),
            noise(&[b, s, heads * d], 2),
            noise(&[b, s, heads * d], 3),
        );
        for mask in [AttnMask::None, AttnMask::Causal] {
            if mask == AttnMask::Causal && s != t {
                continue;
            }
            let expected = reference(&q, &k, &v, heads, mask);
            for isa in with_pairs() {
                let run = |isa: Isa| {
                    let op = AttentionOp {
                        heads,
                        mask,
                        in_bf16: true,
                        isa,
                    };
                    q.apply_op3_no_bwd(&k, &v, &op).unwrap()
                };
                let what = format!("{isa} {t} over {s}, {heads} of {d}");
                let found = run(isa);
                assert_near(&what, &found, &expected, 2e-2);
                assert_same(&what, &found, &run(isa.by_reference()));
            }
        }
    }
}

#[test]
fn a_row_in_bf16_does_not_depend_on_its_neighbours_or_on_threads() {
    let (q, k, v) = (
        noise(&[3, 90, 80], 1),
        noise(&[3, 600, 80], 2),
        noise(&[3, 600, 80], 3),
    );
    for isa in with_pairs() {
        for in_bf16 in [true, false] {
            let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
                let op = AttentionOp {
                    heads: 2,
                    mask: AttnMask::None,
                    in_bf16,
                    isa,
                };
                q.apply_op3_no_bwd(k, v, &op).unwrap()
            };
            let whole = attend(&q, &k, &v);
            for i in 0..3 {
                let alone = attend(&row(&q, i), &row(&k, i), &row(&v, i));
                assert_same(&format!("{isa} {i}"), &row(&whole, i), &alone);
            }
            assert_same_on_threads(&whole, || attend(&q, &k, &v));
        }
    }
}

/// Split products are other numbers than those of f32; without this, a set that computes as any other would pass all tests.
#[test]
fn attention_is_split_where_a_set_splits() {
    let [q, k, v] = [1, 2, 3].map(|seed| noise(&[1, 64, 80], seed));
    let run = |isa: Isa| {
        let op = AttentionOp {
            heads: 2,
            mask: AttnMask::None,
            in_bf16: false,
            isa,
        };
        wide(&q.apply_op3_no_bwd(&k, &v, &op).unwrap())
    };
    let plain = run(Isa::detect());
    for isa in Isa::emulated() {
        assert_eq!(run(isa) != plain, isa.splits(), "{isa}");
    }
}
