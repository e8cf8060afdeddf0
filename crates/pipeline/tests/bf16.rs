//! Whole runs with products in bfloat16, by the portable reference of AVX-512's instruction where the machine has none.
//!
//! One test, in a process of its own, because a process has one instruction set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/runs.rs"]
mod runs;
#[expect(dead_code, reason = "a part of it is for other tests")]
mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use pentimento_kernels::Isa;
use pentimento_pipeline::Device;
use pentimento_testkit::{Tolerance, assert_close, golden_files};
use runs::{golden, picture};
use support::tiny_on;

#[test]
fn golden_pictures_stay_near() {
    let chosen = ["AVX512-BF16", "AVX512-BF16-emulated"]
        .into_iter()
        .any(Isa::choose);
    assert!(chosen, "something has computed before");
    let device = Device::cpu_in_bf16().unwrap();
    let files = golden_files("pipeline");
    assert!(!files.is_empty());
    for file in files {
        let case = file.trim_end_matches(".safetensors");
        let (golden, model) = golden(case);
        let found = picture(&golden, &tiny_on(&model, &device));
        let what = format!("{case}: image");
        assert_close(&what, &found, golden.tensor("output.u8"), Tolerance::PICTURE_BF16);
    }
}
