//! Whole runs with products of split numbers, as AMX computes f32, by its portable reference: the bounds of f32 hold.
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
fn golden_pictures_keep_their_bounds() {
    pictures_are_near(&["AMX-emulated"], || Device::Cpu, Tolerance::PICTURE);
}
