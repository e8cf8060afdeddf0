//! The layers of a network are those of its checkpoint, by name and shape, and it says how many bytes it holds.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use pentimento_models::{
    ClipText, ClipTextConfig, ConditioningShape, LayerName, LayerShape, UNet, UNetConfig, Vae, VaeConfig,
};
use pentimento_weights::{Component, Dtypes};
use serde_json::json;

use crate::support::{CPU, prepare, source, text_encoder, tiny, unet, vae, wave};

/// Name to dimensions.
type Tensors = BTreeMap<String, Vec<usize>>;

/// The tensors that a checkpoint has for the layers that `layers` enumerates.
fn tensors_of(layers: impl FnOnce(&mut dyn FnMut(&LayerName, LayerShape))) -> Tensors {
    let mut found = Tensors::new();
    layers(&mut |name, shape| {
        let mut add = |tensor: &str, dims: Vec<usize>| {
            let twice = found.insert(format!("{name}.{tensor}"), dims);
            assert_eq!(twice, None, "{name} is enumerated twice");
        };
        add("weight", shape.weight_dims());
        if shape.bias {
            add("bias", vec![shape.outputs]);
        }
    });
    found
}

fn stored(model: &str, file: &str) -> BTreeMap<String, Tensor> {
    let bytes = tiny(model).read(file).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    tensors.into_iter().collect()
}

fn dims(tensors: &BTreeMap<String, Tensor>) -> Tensors {
    let dims = |(name, tensor): (&String, &Tensor)| (name.clone(), tensor.dims().to_vec());
    tensors.iter().map(dims).collect()
}

#[test]
fn layers_are_those_of_the_checkpoint_by_name_and_shape() {
    for model in ["tiny", "tiny-lcm"] {
        let network = unet(model);
        let file = stored(model, "unet/diffusion_pytorch_model.safetensors");
        assert_eq!(tensors_of(|visit| network.layers(visit)), dims(&file), "{model}");
    }
    let network = vae();
    let file = stored("tiny", "vae/diffusion_pytorch_model.safetensors");
    assert_eq!(tensors_of(|visit| network.layers(visit)), dims(&file));
    let network = text_encoder("gelu");
    let file = stored("tiny", "text_encoder/model.safetensors");
    assert_eq!(tensors_of(|visit| network.layers(visit)), dims(&file));
}

/// The bytes of the tensors that a network of these layers has, those that are not vectors at `size` bytes a number.
fn bytes(tensors: &Tensors, size: usize) -> u64 {
    let bytes = tensors.values().map(|dims| {
        let count: usize = dims.iter().product();
        count * if dims.len() > 1 { size } else { 4 }
    });
    bytes.sum::<usize>() as u64
}

#[track_caller]
fn assert_about(found: u64, expected: u64) {
    assert!(
        found.abs_diff(expected) * 50 < expected,
        "{found} bytes, not {expected}"
    );
}

/// Nothing but the last panel of a layer is larger than what is stored, so with widths of 64 and more a network holds
/// what its file has; and half of it with numbers of two bytes, except for the VAE's folded attention, which is in f32.
#[test]
fn networks_hold_about_as_many_bytes_as_their_tensors() {
    let unet_config: UNetConfig = serde_json::from_value(json!({
        "block_out_channels": [64, 128],
        "cross_attention_dim": 64,
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }))
    .unwrap();
    let vae_config: VaeConfig = serde_json::from_value(json!({
        "block_out_channels": [64, 128],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    }))
    .unwrap();
    let text_config: ClipTextConfig = serde_json::from_value(json!({
        "vocab_size": 500, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }))
    .unwrap();
    for (dtype, size) in [(DType::F32, 4), (DType::F16, 2)] {
        let component = Component::seeded(1, Dtypes::All(dtype), &CPU);
        let unet = UNet::new(&unet_config, source(&component)).unwrap();
        assert_about(
            unet.size_bytes(),
            bytes(&tensors_of(|visit| unet.layers(visit)), size),
        );
        let text = ClipText::new(&text_config, source(&component)).unwrap();
        assert_about(
            text.size_bytes(),
            bytes(&tensors_of(|visit| text.layers(visit)), size),
        );
        let vae = Vae::new(&vae_config, source(&component)).unwrap();
        let (folded, others) = tensors_of(|visit| vae.layers(visit))
            .into_iter()
            .partition(|(name, _)| name.contains(".to_"));
        // Two matrices of four are left.
        assert_about(vae.size_bytes(), bytes(&others, size) + bytes(&folded, 4) / 2);
    }
}

#[test]
fn keys_and_values_take_the_bytes_that_were_announced() {
    for model in ["tiny", "tiny-lcm"] {
        let unet = unet(model);
        let width = unet.config().cross_attention_dim;
        for tokens in [1, 77, 231] {
            let prepared = prepare(&unet, &wave(&[1, tokens, width], 0.3)).remove(0);
            let shape = ConditioningShape::of_text(tokens);
            assert_eq!(prepared.shape(), shape);
            assert_eq!(prepared.size_bytes(), unet.kv_bytes(shape));
            assert!(unet.kv_bytes(shape) > (tokens * 4 * 2) as u64);
        }
        let endless = ConditioningShape::of_text(usize::MAX);
        assert_eq!(unet.kv_bytes(endless), u64::MAX);
    }
}
