//! Opens the tiny models, and compares while saying how far apart things are.

use candle_core::{DType, Device, Tensor};
use pentimento_models::{
    self as models, ClipText, ClipTokenizer, Conditioning, LayerSource, PreparedConditioning, UNet,
    UNetInput, Vae,
};
use pentimento_testkit::{Golden, Tolerance, assert_close, compare, golden_dir};
use pentimento_weights::{Checkpoint, Component, Dtypes};

pub(crate) const CPU: Device = Device::Cpu;

/// The tensors of a component, for a network on the CPU.
pub(crate) fn source(component: &Component) -> LayerSource<'static> {
    LayerSource::new(component.var_builder(), &models::Device::Cpu)
}

/// A device on which a network may be tested.
pub(crate) type On<'a> = &'a models::Device;

pub(crate) fn tiny(name: &str) -> Checkpoint {
    Checkpoint::open(&golden_dir().join("models").join(name)).unwrap()
}

pub(crate) fn unet(name: &str) -> UNet {
    unet_on(name, &models::Device::Cpu)
}

pub(crate) fn unet_on(name: &str, device: On<'_>) -> UNet {
    let model = tiny(name);
    let component = model.component("unet", Dtypes::All(DType::F32), &CPU).unwrap();
    let source = LayerSource::new(component.var_builder(), device);
    let unet = UNet::new(&model.json("unet/config.json").unwrap(), source).unwrap();
    component.finish().unwrap();
    unet
}

/// Each row of the token states `states` (B, T, D), prepared for `unet`.
pub(crate) fn prepare(unet: &UNet, states: &Tensor) -> Vec<PreparedConditioning> {
    let rows = 0..states.dim(0).unwrap();
    let row = |row: usize| Conditioning::from_text(states.narrow(0, row, 1).unwrap().contiguous().unwrap());
    rows.map(|number| unet.prepare(&row(number)).unwrap()).collect()
}

/// What all forwards of a golden file have in common.
pub(crate) struct GoldenInputs<'a> {
    golden: &'a Golden,
    timesteps: Vec<f32>,
    conditioning: Vec<PreparedConditioning>,
}

/// The golden file's timesteps and texts.
pub(crate) fn inputs<'a>(golden: &'a Golden, unet: &UNet) -> GoldenInputs<'a> {
    GoldenInputs {
        golden,
        timesteps: golden.tensor("steps").to_vec1().unwrap(),
        conditioning: prepare(unet, golden.tensor("context")),
    }
}

impl GoldenInputs<'_> {
    /// The input of size `size`, plain.
    pub(crate) fn of(&self, size: &str) -> UNetInput<'_> {
        UNetInput {
            sample: self.golden.tensor(&format!("{size}.sample")),
            timesteps: &self.timesteps,
            conditioning: &self.conditioning,
            rows: &[],
            guidance_embedding: None,
            merging: &[],
            networks: &[],
        }
    }
}

pub(crate) fn vae() -> Vae {
    vae_on(&models::Device::Cpu)
}

pub(crate) fn vae_on(device: On<'_>) -> Vae {
    let model = tiny("tiny");
    let component = model.component("vae", Dtypes::All(DType::F32), &CPU).unwrap();
    let source = LayerSource::new(component.var_builder(), device);
    let vae = Vae::new(&model.json("vae/config.json").unwrap(), source).unwrap();
    component.finish().unwrap();
    vae
}

/// The text encoder with another activation than its file says.
pub(crate) fn text_encoder(activation: &str) -> ClipText {
    text_encoder_on(activation, &models::Device::Cpu)
}

/// The same on a device.
pub(crate) fn text_encoder_on(activation: &str, device: On<'_>) -> ClipText {
    let model = tiny("tiny");
    let mut config: serde_json::Value = model.json("text_encoder/config.json").unwrap();
    config["hidden_act"] = activation.into();
    let component = model
        .component("text_encoder", Dtypes::All(DType::F32), &CPU)
        .unwrap();
    let source = LayerSource::new(component.var_builder(), device);
    let text = ClipText::new(&serde_json::from_value(config).unwrap(), source).unwrap();
    component.finish().unwrap();
    text
}

pub(crate) fn tokenizer() -> ClipTokenizer {
    let model = tiny("tiny");
    let read = |file: &str| model.read(&format!("tokenizer/{file}")).unwrap();
    let config = read("tokenizer_config.json");
    ClipTokenizer::from_files(&read("vocab.json"), &read("merges.txt"), Some(&config), None).unwrap()
}

/// As `assert_close`, and prints the difference for whoever wants to tighten the table (`--nocapture`).
#[track_caller]
pub(crate) fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    let difference = compare(found, expected).unwrap();
    println!("{what}: max {:.2e}, mean {:.2e}", difference.max, difference.mean);
    assert_close(what, found, expected, tolerance);
}

/// A smooth, never repeating input, for tests that compare us with ourselves.
pub(crate) fn wave(shape: &[usize], phase: f32) -> Tensor {
    let count: usize = shape.iter().product();
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let values: Vec<f32> = (0..count)
        .map(|i| (i as f32 * 0.731 + phase).sin() * 1.4)
        .collect();
    Tensor::from_vec(values, shape, &CPU).unwrap()
}
