//! What does not fit is refused with names: tensors, shapes, architectures, inputs.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use pentimento_models::{
    ClipTextConfig, Conditioning, ImageTokens, UNet, UNetConfig, UNetInput, Vae, VaeConfig,
};
use pentimento_types::{ErrorKind, HasKind, describe_chain};
use pentimento_weights::{Checkpoint, Component, Dtypes};
use serde_json::{Value, json};

use crate::support::{CPU, prepare, source, tiny, unet, vae, wave};

/// Loads the tiny UNet after `change` has been at its tensors.
fn load(change: impl Fn(&mut HashMap<String, Tensor>)) -> Result<(), String> {
    const FILE: &str = "unet/diffusion_pytorch_model.safetensors";
    let model = tiny("tiny");
    let bytes = model.read(FILE).unwrap();
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    change(&mut tensors);
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let changed = Checkpoint::in_memory("m", move |path| (path == FILE).then(|| bytes.clone()));
    let component = changed.component("unet", Dtypes::All(DType::F32), &CPU).unwrap();
    let config: UNetConfig = model.json("unet/config.json").unwrap();
    UNet::new(&config, source(&component)).map_err(|e| describe_chain(&e))?;
    component.finish().map_err(|e| describe_chain(&e))
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named() {
    let file = "m/unet/diffusion_pytorch_model.safetensors";
    assert_eq!(load(|_| ()), Ok(()));
    let missing = load(|t| drop(t.remove("mid_block.resnets.0.conv1.weight"))).unwrap_err();
    assert_eq!(
        missing,
        format!(
            "loading the unet: {file}: tensor `mid_block.resnets.0.conv1.weight` is missing, expected shape [64, 64, 3, 3]"
        )
    );
    let misshapen = load(|t| drop(t.insert("conv_in.bias".to_owned(), wave(&[31], 0.0)))).unwrap_err();
    assert_eq!(
        misshapen,
        format!("loading the unet: {file}: tensor `conv_in.bias` has shape [31], expected [32]")
    );
    let extra =
        load(|t| drop(t.insert("add_embedding.linear_1.bias".to_owned(), wave(&[4], 0.0)))).unwrap_err();
    assert_eq!(
        extra,
        format!(
            "{file}: 1 tensors are not part of the expected network, first `add_embedding.linear_1.bias`"
        )
    );
}

#[test]
fn architectures_we_do_not_build_are_named() {
    let model = tiny("tiny");
    let with = |file: &str, key: &str, value: Value| {
        let mut config: Value = model.json(file).unwrap();
        config[key] = value;
        config
    };
    for (key, value) in [
        (
            "down_block_types",
            json!(["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]),
        ),
        ("mid_block_type", json!("UNetMidBlock2D")),
        ("addition_embed_type", json!("text_time")),
        ("addition_embed_type", json!("image")),
        ("class_embed_type", json!("timestep")),
        ("act_fn", json!("gelu")),
        ("num_attention_heads", json!(8)),
        ("attention_head_dim", json!([4, 4, 5, 4])),
        ("attention_head_dim", json!([4, 4])),
        ("norm_num_groups", json!(7)),
        ("block_out_channels", json!([])),
        ("layers_per_block", json!(0)),
        ("cross_attention_dim", json!([32, 32, 32, 48])),
        ("time_embedding_type", json!("fourier")),
        ("conv_in_kernel", json!(1)),
    ] {
        let error = serde_json::from_value::<UNetConfig>(with("unet/config.json", key, value)).unwrap_err();
        assert!(
            error.to_string().contains(key) || key == "block_out_channels",
            "{key}: {error}"
        );
    }
    for (key, value) in [
        ("down_block_types", json!(["AttnDownEncoderBlock2D"])),
        ("scaling_factor", json!(0)),
        ("norm_num_groups", json!(0)),
    ] {
        let error = serde_json::from_value::<VaeConfig>(with("vae/config.json", key, value)).unwrap_err();
        assert!(error.to_string().contains(key), "{key}: {error}");
    }
    for (key, value) in [
        ("hidden_act", json!("relu")),
        ("num_attention_heads", json!(5)),
        ("use_attention_mask", json!(true)),
    ] {
        let config = with("text_encoder/config.json", key, value);
        assert!(serde_json::from_value::<ClipTextConfig>(config).is_err(), "{key}");
    }
}

#[test]
fn inputs_of_the_wrong_shape_are_named() {
    let plain = unet("tiny");
    let sample = wave(&[2, 4, 8, 8], 0.0);
    let conditioning = prepare(&plain, &wave(&[2, 77, 32], 0.0));
    let good = UNetInput {
        sample: &sample,
        timesteps: &[500.0, 20.0],
        conditioning: &conditioning,
        rows: &[],
        guidance_embedding: None,
        merging: &[],
        networks: &[],
    };
    let error = |input: UNetInput<'_>| plain.forward(input).unwrap_err().to_string();
    assert_eq!(
        error(UNetInput {
            sample: &wave(&[2, 9, 8, 8], 0.0),
            ..good
        }),
        "latent has shape [2, 9, 8, 8], expected (P, 4, h, w)"
    );
    let short = UNetInput {
        timesteps: &[500.0],
        ..good
    };
    assert!(error(short).starts_with("timesteps has shape [1]"));
    let single = UNetInput {
        conditioning: &conditioning[..1],
        ..good
    };
    assert!(error(single).starts_with("conditioning has shape [1, "));
    let mut longer = conditioning.clone();
    longer.truncate(1);
    longer.extend(prepare(&plain, &wave(&[1, 154, 32], 0.0)));
    let uneven = UNetInput {
        conditioning: &longer,
        ..good
    };
    assert_eq!(
        error(uneven),
        "conditioning has shape [2, 10, 154], expected 2 rows for 10 layers, all of 77 tokens"
    );
    let rows = |rows: &'static [usize]| error(UNetInput { rows, ..good });
    assert_eq!(
        rows(&[2, 0]),
        "rows of each image has shape [2, 0], expected 2 numbers from 1 on"
    );
    assert!(rows(&[2]).starts_with("rows of each image has shape [2]"));
    assert!(rows(&[2, 1]).starts_with("conditioning has shape [2, "));
    let merging = UNetInput {
        merging: &[true],
        ..good
    };
    assert!(error(merging).starts_with("merging flags has shape [1]"));
    assert_eq!(
        error(UNetInput {
            guidance_embedding: Some(&wave(&[2, 256], 0.0)),
            ..good
        }),
        "this UNet takes no guidance embedding"
    );
    assert!(vae().encode_moments(&wave(&[1, 3, 65, 64], 0.0)).is_err());
    assert!(vae().decode(&wave(&[1, 3, 8, 8], 0.0)).is_err());
}

#[test]
fn conditioning_that_the_architecture_does_not_take_is_named() {
    let unet = unet("tiny");
    let error = |conditioning: &Conditioning| unet.prepare(conditioning).unwrap_err();
    let text = |width: usize| Conditioning::from_text(wave(&[1, 77, width], 0.0));
    assert_eq!(
        error(&text(33)).to_string(),
        "token states has shape [1, 77, 33], expected (1, T, 32)"
    );
    // Two text encoders, as SDXL has them, whose states are as wide as this network wants them together.
    let two = Conditioning {
        token_states: vec![wave(&[1, 77, 12], 0.0), wave(&[1, 77, 20], 0.1)],
        ..Conditioning::default()
    };
    assert_eq!(unet.prepare(&two).unwrap().shape().tokens, 77);
    for (named, conditioning) in [
        (
            "pooled state",
            Conditioning {
                pooled: Some(wave(&[1, 32], 0.0)),
                ..text(32)
            },
        ),
        (
            "size conditions",
            Conditioning {
                size_conditions: Some([512.0, 512.0, 0.0, 0.0, 512.0, 512.0]),
                ..text(32)
            },
        ),
        (
            "image tokens",
            Conditioning {
                image_tokens: Some(ImageTokens {
                    tokens: wave(&[1, 4, 32], 0.0),
                    scale: 1.0,
                }),
                ..text(32)
            },
        ),
    ] {
        let error = error(&conditioning);
        assert_eq!(error.to_string(), format!("this UNet takes no {named}"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn seeded_networks_load_and_stay_finite() {
    let model = tiny("tiny-lcm");
    let component = |seed| Component::seeded(seed, Dtypes::All(DType::F32), &CPU);
    let config: UNetConfig = model.json("unet/config.json").unwrap();
    let unet = UNet::new(&config, source(&component(1))).unwrap();
    let out = unet
        .forward(UNetInput {
            sample: &wave(&[1, 4, 8, 8], 0.0),
            timesteps: &[500.0],
            conditioning: &prepare(&unet, &wave(&[1, 77, 32], 0.1)),
            rows: &[],
            guidance_embedding: None,
            merging: &[],
            networks: &[],
        })
        .unwrap();
    let config: VaeConfig = model.json("vae/config.json").unwrap();
    let vae = Vae::new(&config, source(&component(2))).unwrap();
    for tensor in [out, vae.decode(&wave(&[1, 4, 8, 8], 0.0)).unwrap()] {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|v| v.is_finite() && v.abs() < 100.0));
        assert!(values.iter().any(|v| (v - values[0]).abs() > 0.1));
    }
}
