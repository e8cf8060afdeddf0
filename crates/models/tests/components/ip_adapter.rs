//! IP-Adapters beside a UNet: rows do not meet, whatever pictures and scales they have. `pipeline` compares them with diffusers.

use candle_core::Tensor;
use pentimento_models::{
    Conditioning, Device, ImageProjectionConfig, ImageTokens, IpAdapter, IpAdapterConfig, LayerSource,
    PreparedConditioning, UNet, UNetInput, VisionOutput,
};
use pentimento_testkit::{Tolerance, assert_close, compare};
use pentimento_weights::{Component, Dtypes};

use crate::support::{CPU, On, source, unet, wave};

pub(crate) const LINEAR: IpAdapterConfig = IpAdapterConfig {
    tokens: 4,
    width: 32,
    projection: ImageProjectionConfig::Linear { embedding: 24 },
};
pub(crate) const RESAMPLER: IpAdapterConfig = IpAdapterConfig {
    tokens: 6,
    width: 32,
    projection: ImageProjectionConfig::Resampler {
        states: 20,
        hidden: 16,
        heads: 2,
        depth: 2,
        inner: 64,
    },
};

fn adapter(config: &IpAdapterConfig, unet: &UNet) -> IpAdapter {
    adapter_on(config, unet, &Device::Cpu)
}

pub(crate) fn adapter_on(config: &IpAdapterConfig, unet: &UNet, device: On<'_>) -> IpAdapter {
    let weights = Component::seeded(7, Dtypes::Stored, &CPU);
    IpAdapter::new(
        config,
        unet.config(),
        LayerSource::new(weights.var_builder(), device),
    )
    .unwrap()
}

/// A text, and what is shown beside it.
pub(crate) fn prepared(
    unet: &UNet,
    adapter: &IpAdapter,
    picture: u8,
    scale: Option<f32>,
) -> PreparedConditioning {
    let phase = f32::from(picture);
    let seen = match adapter.takes() {
        VisionOutput::Embedding => wave(&[1, 24], phase),
        VisionOutput::Penultimate => wave(&[1, 9, 20], phase),
    };
    let image_tokens = scale.map(|scale| ImageTokens {
        tokens: adapter.tokens(&seen).unwrap(),
        scale,
    });
    let conditioning = Conditioning {
        image_tokens,
        ..Conditioning::from_text(wave(&[1, 77, 32], phase * 0.1))
    };
    unet.prepare_with(&conditioning, Some(adapter)).unwrap()
}

pub(crate) fn forward(
    unet: &UNet,
    sample: &Tensor,
    rows: &[usize],
    conditioning: &[PreparedConditioning],
) -> Tensor {
    let timesteps = vec![400.0; sample.dim(0).unwrap()];
    unet.forward(UNetInput {
        sample,
        timesteps: &timesteps,
        conditioning,
        rows,
        guidance_embedding: None,
        merging: &[],
        networks: &[],
    })
    .unwrap()
}

#[test]
fn rows_of_other_pictures_and_scales_do_not_meet() {
    let unet = unet("tiny");
    for config in [LINEAR, RESAMPLER] {
        let adapter = adapter(&config, &unet);
        // Runs of rows with a picture and without one, at the ends and in the middle.
        let scales = [0.0, 1.0, 0.5, 0.0, 0.0, 1.0, 0.3, 1.5];
        let conditioning: Vec<PreparedConditioning> = (0..)
            .zip(scales)
            .map(|(row, scale)| prepared(&unet, &adapter, row, Some(scale)))
            .collect();
        let sample = wave(&[4, 4, 9, 7], 0.3);
        let together = forward(&unet, &sample, &[2, 1, 2, 3], &conditioning);
        for (row, image) in [0, 0, 1, 2, 2, 3, 3, 3].into_iter().enumerate() {
            let alone = forward(
                &unet,
                &sample.narrow(0, image, 1).unwrap(),
                &[],
                &conditioning[row..=row],
            );
            let expected = together.narrow(0, row, 1).unwrap();
            assert_close(&format!("row {row}"), &alone, &expected, Tolerance::EXACT);
        }
    }
}

#[test]
fn scale_0_is_no_picture_and_others_change_the_prediction() {
    let unet = unet("tiny");
    let adapter = adapter(&LINEAR, &unet);
    let sample = wave(&[1, 4, 8, 8], 0.3);
    let run = |conditioning| forward(&unet, &sample, &[], &[conditioning]);
    let none = run(unet
        .prepare(&Conditioning::from_text(wave(&[1, 77, 32], 0.3)))
        .unwrap());
    let zero = prepared(&unet, &adapter, 3, Some(0.0));
    let one = prepared(&unet, &adapter, 3, Some(1.0));
    // They differ in one thing, so that they may share a forward.
    assert_eq!(zero.shape(), one.shape());
    assert_eq!(zero.shape().image_tokens, 4);
    assert_eq!(one.size_bytes(), unet.kv_bytes(one.shape()));
    assert!(zero.size_bytes() < one.size_bytes());
    assert_close("scale 0", &run(zero), &none, Tolerance::EXACT);
    assert_close(
        "no picture",
        &run(prepared(&unet, &adapter, 3, None)),
        &none,
        Tolerance::EXACT,
    );
    assert!(compare(&run(one), &none).unwrap().mean > 0.01);
}

#[test]
fn what_does_not_fit_is_named() {
    let unet = unet("tiny");
    let linear = adapter(&LINEAR, &unet);
    let error = linear.tokens(&wave(&[1, 25], 0.0)).unwrap_err().to_string();
    assert_eq!(
        error,
        "what the image encoder gives has shape [1, 25], expected (B, 24)"
    );
    let resampler = adapter(&RESAMPLER, &unet);
    assert!(resampler.tokens(&wave(&[1, 20], 0.0)).is_err());
    let with = |tokens: Tensor| Conditioning {
        image_tokens: Some(ImageTokens { tokens, scale: 1.0 }),
        ..Conditioning::from_text(wave(&[1, 77, 32], 0.3))
    };
    let error = unet.prepare_with(&with(wave(&[1, 6, 32], 0.0)), Some(&linear));
    assert_eq!(
        error.unwrap_err().to_string(),
        "image tokens has shape [1, 6, 32], expected (1, 4, 32)"
    );
    // An adapter that was loaded for a UNet of other blocks.
    let config = serde_json::json!({
        "block_out_channels": [32, 32], "cross_attention_dim": 32, "layers_per_block": 1, "attention_head_dim": 4,
        "norm_num_groups": 8,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    });
    let other = Component::seeded(3, Dtypes::Stored, &CPU);
    let other = UNet::new(&serde_json::from_value(config).unwrap(), source(&other)).unwrap();
    let error = other.prepare_with(&with(wave(&[1, 4, 32], 0.0)), Some(&linear));
    assert_eq!(
        error.unwrap_err().to_string(),
        "layers of the IP-Adapter has shape [10], expected (4)"
    );
}
