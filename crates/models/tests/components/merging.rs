//! Token merging against the package `tomesd` without its random choice (`tests/golden/generate/merging.py`).

use candle_core::{DType, Tensor};
use pentimento_kernels::cpu::TokenMerge;
use pentimento_models::UNetInput;
use pentimento_testkit::{Golden, Tolerance};

use crate::support::{close, inputs, unet};

#[test]
fn the_same_tokens_are_merged_to_the_same_means() {
    let golden = Golden::open("merging/tokens.safetensors");
    let merged: Vec<usize> = serde_json::from_value(golden.about()["merged"].clone()).unwrap();
    let sizes = [(8, 8), (9, 7), (5, 12), (6, 6), (34, 36)];
    assert_eq!(merged.len(), sizes.len());
    for ((h, w), merged) in sizes.into_iter().zip(merged) {
        let tensor = |name: &str| golden.tensor(&format!("{h}x{w}.{name}"));
        let x = tensor("x");
        let merge = TokenMerge::choose(x, (h, w), merged).unwrap().unwrap();
        let places: Vec<Vec<i64>> = tensor("places").to_vec2().unwrap();
        for (found, expected) in merge.places().zip(places) {
            let expected: Vec<usize> = expected
                .into_iter()
                .map(|p| usize::try_from(p).unwrap())
                .collect();
            assert_eq!(found, expected, "{h}x{w}");
        }
        let means = merge.merge(x).unwrap();
        let back = merge.unmerge(&means, &x.zeros_like().unwrap()).unwrap();
        close("merged", &means, tensor("merged"), Tolerance::TOKEN_MERGING);
        close("unmerged", &back, tensor("unmerged"), Tolerance::TOKEN_MERGING);
    }
}

#[test]
fn predictions_equal_the_package_and_differ_from_those_without_it() {
    let golden = Golden::open("merging/unet-tiny.safetensors");
    let unet = unet("tiny");
    let inputs = inputs(&golden, &unet);
    for size in ["8x8", "9x7", "12x5", "16x24"] {
        let run = |merging: &[bool]| {
            unet.forward(UNetInput {
                merging,
                ..inputs.of(size)
            })
            .unwrap()
        };
        let expected = golden.tensor(&format!("{size}.out"));
        close(size, &run(&[true; 3]), expected, Tolerance::UNET);
        let plain = run(&[]);
        let distance = (&plain - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(distance.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap() > 0.01);
        let mixed = run(&[false, true, false]);
        let parts = [
            plain.narrow(0, 0, 1),
            run(&[true; 3]).narrow(0, 1, 1),
            plain.narrow(0, 2, 1),
        ];
        let parts: Vec<Tensor> = parts.into_iter().collect::<Result<_, _>>().unwrap();
        close(
            "mixed",
            &mixed,
            &Tensor::cat(&parts, 0).unwrap(),
            Tolerance::EXACT,
        );
    }
}
