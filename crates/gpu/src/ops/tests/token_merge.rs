//! Token merging: which tokens, their means, and the way back.

use crate::testing::{assert_close, compute, distance, each_way, numbers};
use crate::{DType, Gpu, TokenMerge};

/// Rows, lines, columns, width and how many tokens are merged.
pub(super) type Sizes = [usize; 5];

const SIZES: [Sizes; 6] = [
    [2, 4, 6, 40, 9],
    [1, 5, 7, 3, 20],
    [1, 2, 2, 1, 3],
    [2, 20, 17, 70, 100],
    [1, 3, 3, 8, 1],
    [1, 24, 26, 5, 468],
];

fn is_destination(token: usize, h: usize, w: usize) -> bool {
    let (line, column) = (token / w, token % w);
    line % 2 == 0 && column % 2 == 0 && line < h / 2 * 2 && column < w / 2 * 2
}

/// The token that each token of a row becomes part of.
fn targets(x: &[f64], [_, h, w, width, merged]: Sizes) -> Vec<usize> {
    let token = |token: usize| &x[token * width..][..width];
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let destinations: Vec<usize> = (0..h * w).filter(|token| is_destination(*token, h, w)).collect();
    let mut found: Vec<(f64, usize, usize)> = (0..h * w)
        .filter(|token| !is_destination(*token, h, w))
        .map(|source| {
            let mut best = (f64::NEG_INFINITY, 0);
            for &destination in &destinations {
                let (a, b) = (token(source), token(destination));
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let size = length(a) * length(b);
                let score = if size > 0.0 { product / size } else { 0.0 };
                // Of scores that are equal but for rounding the first.
                if score > best.0 + 1e-9 {
                    best = (score, destination);
                }
            }
            (best.0, source, best.1)
        })
        .collect();
    found.sort_by(|a, b| {
        let apart = (a.0 - b.0).abs() > 1e-9;
        if apart { b.0.total_cmp(&a.0) } else { a.1.cmp(&b.1) }
    });
    let mut into: Vec<usize> = (0..h * w).collect();
    for (_, source, destination) in found.into_iter().take(merged) {
        into[source] = destination;
    }
    into
}

/// Places, means, and means at their tokens plus `x`, of all rows.
fn reference(x: &[f32], sizes @ [rows, h, w, width, _]: Sizes) -> [Vec<f64>; 3] {
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for row in 0..rows {
        let x: Vec<f64> = x[row * h * w * width..][..h * w * width]
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        let into = targets(&x, sizes);
        let kept: Vec<usize> = (0..h * w).filter(|token| into[*token] == *token).collect();
        let means: Vec<Vec<f64>> = kept
            .iter()
            .map(|kept| {
                let members: Vec<usize> = (0..h * w).filter(|token| into[*token] == *kept).collect();
                (0..width)
                    .map(|c| {
                        members.iter().map(|token| x[token * width + c]).sum::<f64>() / members.len() as f64
                    })
                    .collect()
            })
            .collect();
        for token in 0..h * w {
            let place = kept.iter().position(|kept| *kept == into[token]).unwrap();
            all[0].push(place as f64);
            all[2].extend((0..width).map(|c| means[place][c] + x[token * width + c]));
        }
        all[1].extend(means.into_iter().flatten());
    }
    all
}

fn merge(gpu: &Gpu, dtype: DType, x: &[f32], [rows, h, w, width, merged]: Sizes) -> Vec<Vec<f32>> {
    compute(gpu, dtype, &[(&[rows, h * w, width], x)], |x| {
        let merge = TokenMerge::choose(&x[0], (h, w), merged)?.unwrap();
        let means = merge.merge(&x[0])?;
        let back = merge.unmerge(&means, &x[0])?;
        Ok(vec![merge.places().clone(), means, back])
    })
}

/// How far places and means are from the reference, in f32.
pub(super) fn far_from_reference(gpu: &Gpu, sizes @ [rows, h, w, width, _]: Sizes) -> f64 {
    let x = numbers(1, rows * h * w * width, DType::F32);
    let got = merge(gpu, DType::F32, &x, sizes);
    let [places, means, _] = reference(&x, sizes);
    distance(&got[0], &places) + distance(&got[1], &means)
}

#[test]
fn the_most_similar_tokens_become_one() {
    for sizes @ [rows, h, w, width, _] in SIZES {
        each_way(|gpu, dtype| {
            let x = numbers(1, rows * h * w * width, dtype);
            let got = merge(gpu, dtype, &x, sizes);
            let [places, means, back] = reference(&x, sizes);
            assert_eq!(
                got[0].iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
                places,
                "{sizes:?}"
            );
            assert_close("means", dtype, &got[1], &means);
            let limit = if dtype == DType::F32 { 2e-6 } else { 1e-3 };
            assert!(distance(&got[2], &back) < limit, "{sizes:?}");
        });
    }
}

/// Equal tokens, zeros among them: of equal scores the first in the image's order, in every order of threads.
#[test]
fn ties_go_to_the_first() {
    let sizes @ [rows, h, w, width, _] = [1, 6, 9, 4, 30];
    for value in [1.0, 0.0] {
        each_way(|gpu, dtype| {
            let x = vec![value; rows * h * w * width];
            let got = merge(gpu, dtype, &x, sizes);
            let [places, ..] = reference(&x, sizes);
            assert_eq!(got[0].iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), places);
        });
    }
}

#[test]
fn not_a_number_stays_within_its_row() {
    let gpu = crate::testing::device(crate::ThreadOrder::Ascending);
    let sizes @ [rows, h, w, width, _] = [2, 4, 4, 8, 6];
    let mut x = numbers(3, rows * h * w * width, DType::F32);
    x[..h * w * width].fill(f32::NAN);
    let got = merge(&gpu, DType::F32, &x, sizes);
    let alone = merge(&gpu, DType::F32, &x[h * w * width..], [1, 4, 4, 8, 6]);
    for (all, alone) in got.iter().zip(&alone) {
        assert_eq!(&all[all.len() - alone.len()..], alone);
    }
}

#[test]
fn where_nothing_can_be_merged_there_is_no_merge() {
    let gpu = crate::testing::device(crate::ThreadOrder::Ascending);
    for ([h, w], merged) in [([4, 4], 0), ([1, 9], 3), ([1, 1], 1)] {
        let x = numbers(1, h * w * 4, DType::F32);
        compute(&gpu, DType::F32, &[(&[1, h * w, 4], &x)], |x| {
            assert!(TokenMerge::choose(&x[0], (h, w), merged)?.is_none());
            Ok(vec![x[0].clone()])
        });
    }
}
