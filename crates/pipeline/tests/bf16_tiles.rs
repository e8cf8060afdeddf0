//! Whole runs in bfloat16 by the tiles of AMX, by their portable reference where the machine has none: convolutions are of rounded
//! numbers there as well, as F(2x2), and the pictures stay nearer to f32 than those of diffusers in bf16 do.
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
use pentimento_testkit::{Tolerance, assert_close, compare, golden_files};
use runs::{golden, picture};
use support::tiny_on;

#[test]
fn golden_pictures_stay_near() {
    let chosen = ["AMX", "AMX-emulated"].into_iter().any(Isa::choose);
    assert!(chosen, "something has computed before");
    let device = Device::cpu_in_bf16().unwrap();
    let files = golden_files("pipeline");
    assert!(!files.is_empty());
    for file in files {
        let case = file.trim_end_matches(".safetensors");
        let (golden, model) = golden(case);
        let found = picture(&golden, &tiny_on(&model, &device));
        let what = format!("{case}: image");
        let expected = golden.tensor("output.u8");
        println!("{what}: {:?}", compare(&found, expected));
        assert_close(&what, &found, expected, Tolerance::PICTURE_BF16_TILES);
    }
}
