//! Token merging against a reference in f64 that sorts, on odd shapes and every instruction set of the machine.

use candle_core::Tensor;

use super::TokenMerge;
use crate::isa::Isa;
use crate::testing::{assert_near, assert_same, assert_same_on_threads, noise, row, wide};

/// For each token of a row the one that it becomes part of, in f64 and by sorting.
fn reference(x: &[f64], (h, w): (usize, usize), merged: usize) -> Vec<usize> {
    let width = x.len() / (h * w);
    let token = |t: usize| &x[t * width..][..width];
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = |a: usize, b: usize| {
        let (a, b) = (token(a), token(b));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let stays = |t: usize| {
        let (y, x) = (t / w, t % w);
        y % 2 == 0 && x % 2 == 0 && y + 1 < h && x + 1 < w
    };
    let (kept, others): (Vec<usize>, Vec<usize>) = (0..h * w).partition(|t| stays(*t));
    let mut best: Vec<(f64, usize, usize)> = others
        .iter()
        .map(|&source| {
            let scored = kept.iter().map(|&to| (cosine(source, to), to));
            let (score, to) = scored.fold((f64::NEG_INFINITY, 0), |a, b| if b.0 > a.0 { b } else { a });
            (score, source, to)
        })
        .collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut into: Vec<usize> = (0..h * w).collect();
    for &(_, source, to) in best.iter().take(merged) {
        into[source] = to;
    }
    into
}

fn means(x: &[f64], into: &[usize]) -> Vec<f64> {
    let width = x.len() / into.len();
    let mut out = Vec::new();
    for place in (0..into.len()).filter(|t| into[*t] == *t) {
        let members: Vec<usize> = (0..into.len()).filter(|t| into[*t] == place).collect();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let count = members.len() as f64;
        out.extend((0..width).map(|i| members.iter().map(|t| x[t * width + i]).sum::<f64>() / count));
    }
    out
}

#[test]
fn every_variant_equals_the_reference_on_odd_shapes() {
    let shapes = [
        (2, 2, 2, 1, 2),
        (3, 3, 5, 7, 4),
        (1, 9, 8, 40, 36),
        (2, 5, 64, 33, 100),
        (1, 2, 63, 16, 63),
        // All that can go, and more destinations than one block has.
        (1, 6, 6, 8, 1000),
        (1, 34, 36, 320, 612),
    ];
    for isa in Isa::available() {
        for (b, h, w, width, merged) in shapes {
            let x = noise(&[b, h * w, width], 7);
            let what = format!("{isa} {:?} as {h}x{w}", x.dims());
            let merge = TokenMerge::choose_with(isa, &x, (h, w), merged).unwrap().unwrap();
            let found = merge.merge(&x).unwrap();
            let back = merge.unmerge(&found, &(&x * 10.0).unwrap()).unwrap();
            let (mut expected, mut expected_back) = (Vec::new(), Vec::new());
            let all = wide(&x);
            for (places, x) in merge.places().zip(all.chunks(h * w * width)) {
                let into = reference(x, (h, w), merged);
                let averages = means(x, &into);
                let kept: Vec<usize> = (0..h * w).filter(|t| into[*t] == *t).collect();
                let expected_places: Vec<usize> = into
                    .iter()
                    .map(|to| kept.iter().position(|t| t == to).unwrap())
                    .collect();
                assert_eq!(places, expected_places, "{what}");
                for (token, place) in expected_places.iter().enumerate() {
                    let average = &averages[place * width..][..width];
                    let x = &x[token * width..][..width];
                    expected_back.extend(x.iter().zip(average).map(|(x, a)| 10.0 * x + a));
                }
                expected.extend(averages);
            }
            assert_near(&what, &found, &expected, 3e-7);
            assert_near(&what, &back, &expected_back, 3e-7);
        }
    }
}

#[test]
fn equal_tokens_are_taken_in_the_order_of_the_image() {
    for isa in Isa::available() {
        let x = Tensor::ones((1, 4 * 40, 5), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let merge = TokenMerge::choose_with(isa, &x, (4, 40), 3).unwrap().unwrap();
        let places = merge.places().next().unwrap().to_vec();
        // Tokens 1, 3 and 5 are the first that are no destinations, and token 0 is the first destination.
        assert_eq!(places[..8], [0, 0, 1, 0, 2, 0, 3, 4], "{isa}");
        assert_eq!(places[159], 156, "{isa}");
    }
}

#[test]
fn tokens_of_zeros_merge_without_a_nan() {
    let x = Tensor::zeros((1, 16, 4), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    let merge = TokenMerge::choose(&x, (4, 4), 8).unwrap().unwrap();
    assert_same(
        "zeros",
        &merge.unmerge(&merge.merge(&x).unwrap(), &x).unwrap(),
        &x,
    );
}

#[test]
fn a_row_does_not_depend_on_its_neighbours_or_on_threads() {
    let x = noise(&[3, 24 * 22, 80], 1);
    let all = |x: &Tensor| {
        let merge = TokenMerge::choose(x, (24, 22), 264).unwrap().unwrap();
        let averages = merge.merge(x).unwrap();
        (merge.unmerge(&averages, x).unwrap(), averages)
    };
    let whole = all(&x);
    for i in 0..3 {
        let alone = all(&row(&x, i));
        assert_same("unmerged", &row(&whole.0, i), &alone.0);
        assert_same("merged", &row(&whole.1, i), &alone.1);
    }
    assert_same_on_threads(&whole.0, || all(&x).0);
}

#[test]
fn what_cannot_be_merged_is_left_or_refused() {
    let line = noise(&[1, 9, 4], 1);
    assert!(TokenMerge::choose(&line, (1, 9), 4).unwrap().is_none());
    assert!(TokenMerge::choose(&line, (3, 3), 0).unwrap().is_none());
    assert!(TokenMerge::choose(&line, (3, 4), 4).is_err());
    let merge = TokenMerge::choose(&line, (3, 3), 4).unwrap().unwrap();
    assert!(merge.merge(&noise(&[2, 9, 4], 1)).is_err());
    assert!(merge.merge(&noise(&[1, 5, 4], 1)).is_err());
    assert!(
        merge
            .unmerge(&noise(&[1, 5, 4], 1), &noise(&[1, 9, 3], 1))
            .is_err()
    );
    assert!(merge.unmerge(&noise(&[1, 9, 4], 1), &line).is_err());
}
