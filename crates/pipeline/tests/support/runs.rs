//! Whole runs of golden files.

use candle_core::Tensor;
use pentimento_pipeline::StableDiffusion;
use pentimento_testkit::Golden;

use crate::support::{image_of, request_of};
use crate::tensors::tensor_of;

/// A golden file of the pipeline, and the name of its model.
pub(crate) fn golden(case: &str) -> (Golden, String) {
    let golden = Golden::open(&format!("pipeline/{case}.safetensors"));
    let model = golden.about()["model"].as_str().unwrap().to_owned();
    (golden, model)
}

/// What a model makes of a golden run's request, as a tensor of bytes.
pub(crate) fn picture(golden: &Golden, model: &StableDiffusion) -> Tensor {
    let init = image_of(golden.tensor("input.u8"));
    let mut states = model.prepare(&request_of(golden.about()), &init).unwrap();
    let mut state = states.remove(0);
    while state.evaluations_left() > 0 {
        model.denoise(&mut [&mut state]).unwrap();
    }
    tensor_of(&model.finish(state).unwrap())
}
