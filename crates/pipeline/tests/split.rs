//! Whole runs with products of split numbers, as AMX computes f32, by its portable reference: the bounds of f32 hold.
//!
//! One test, in a process of its own, because a process has one instruction set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/runs.rs"]
mod runs;
mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use pentimento_kernels::Isa;
use pentimento_testkit::{Tolerance, assert_close, golden_files};
use runs::{golden, picture};
use support::tiny;

#[test]
fn golden_pictures_keep_their_bounds() {
    assert!(Isa::choose("AMX-emulated"), "something has computed before");
    let files = golden_files("pipeline");
    assert!(!files.is_empty());
    for file in files {
        let case = file.trim_end_matches(".safetensors");
        let (golden, model) = golden(case);
        let found = picture(&golden, &tiny(&model));
        let what = format!("{case}: image");
        assert_close(&what, &found, golden.tensor("output.u8"), Tolerance::PICTURE);
    }
}
