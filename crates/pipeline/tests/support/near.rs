//! All golden pictures in another arithmetic.

use pentimento_kernels::Isa;
use pentimento_pipeline::Device;
use pentimento_testkit::{Tolerance, assert_close, golden_files};

use crate::runs::{golden, picture};
use crate::support::tiny_on;

/// Every golden picture, made on the device with the first of these instruction sets that this machine has. A process has one, so
/// nothing may have been computed before.
pub(crate) fn pictures_are_near(sets: &[&str], device: impl FnOnce() -> Device, tolerance: Tolerance) {
    let chosen = sets.iter().copied().any(Isa::choose);
    assert!(chosen, "something has computed before");
    let device = device();
    let files = golden_files("pipeline");
    assert!(!files.is_empty());
    for file in files {
        let case = file.trim_end_matches(".safetensors");
        let (golden, model) = golden(case);
        let found = picture(&golden, &tiny_on(&model, &device));
        let (what, expected) = (format!("{case}: image"), golden.tensor("output.u8"));
        assert_close(&what, &found, expected, tolerance);
    }
}
