//! Whole runs in bfloat16 by the tiles of AMX, by their portable reference where the machine has none: convolutions are of rounded
//! numbers there as well, as F(2x2), and the pictures stay nearer to f32 than those of diffusers in bf16 do.
//!
//! One test, in a process of its own, because a process has one instruction set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/near.rs"]
mod near;
#[path = "support/runs.rs"]
mod runs;
#[expect(dead_code, reason = "a part of it is for other tests")]
mod support;
#[path = "support/tensor_of.rs"]
mod tensors;

use near::pictures_are_near;
use pentimento_pipeline::Device;
use pentimento_testkit::Tolerance;

#[test]
fn golden_pictures_stay_near() {
    let sets = ["AMX", "AMX-emulated"];
    pictures_are_near(
        &sets,
        || Device::cpu_in_bf16().unwrap(),
        Tolerance::PICTURE_BF16_TILES,
    );
}
