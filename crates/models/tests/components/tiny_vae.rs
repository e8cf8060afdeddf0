//! Tiny autoencoders against diffusers, and the variant with an inner norm against its definition.

use std::path::Path;

use candle_core::DType;
use pentimento_models::{Vae, VaeConfig};
use pentimento_testkit::{Golden, Tolerance, golden_dir};
use pentimento_weights::{Checkpoint, Dtypes};
use serde_json::json;

use crate::support::{CPU, close, source};

fn load(path: &Path) -> Vae {
    let checkpoint = Checkpoint::vae(path).unwrap();
    let config: VaeConfig = checkpoint.json("vae/config.json").unwrap();
    let component = checkpoint
        .component("vae", Dtypes::All(DType::F32), &CPU)
        .unwrap();
    let vae = Vae::new(&config, source(&component)).unwrap();
    component.finish().unwrap();
    vae
}

fn check(path: &Path, golden: &str) {
    let golden = Golden::open(&format!("vae/{golden}.safetensors"));
    let vae = load(path);
    assert!(vae.config().is_exact());
    assert_eq!(vae.config().downscale(), 8);
    let name = path.display();
    let encoded = vae.encode_moments(golden.tensor("image")).unwrap();
    close(
        &format!("{name} encode"),
        &encoded,
        golden.tensor("encoded"),
        Tolerance::VAE,
    );
    let decoded = vae.decode(golden.tensor("latent")).unwrap();
    close(
        &format!("{name} decode"),
        &decoded,
        golden.tensor("decoded"),
        Tolerance::VAE,
    );
}

#[test]
fn every_layout_gives_diffusers_latents_and_images() {
    for path in ["tiny-taesd", "taesd_encoder.pth", "taesd_decoder.safetensors"] {
        check(&golden_dir().join("vae").join(path), "taesd");
    }
}

#[test]
fn the_variant_with_an_inner_norm_is_as_defined() {
    check(&golden_dir().join("vae/inner_decoder.pth"), "inner");
}

/// TAEF2 as its author published it, where somebody has put it beside the checkout.
#[test]
fn published_weights_decode_and_encode() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real/taef2_encoder.pth");
    if path.exists() {
        check(&path, "taef2");
    } else {
        println!("taef2_encoder.pth is not there and was NOT run");
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let config = |key: &str, value: serde_json::Value| {
        let mut config = json!({"_class_name": "AutoencoderTiny"});
        config[key] = value;
        serde_json::from_value::<VaeConfig>(config)
    };
    let usual = config("scaling_factor", json!(1.0)).unwrap();
    assert_eq!((usual.latent_channels, usual.block_out_channels.len()), (4, 4));
    for (key, value) in [
        ("act_fn", json!("gelu")),
        ("upsample_fn", json!("bilinear")),
        ("upsampling_scaling_factor", json!(4)),
        ("num_decoder_blocks", json!([1, 1])),
        ("decoder_block_out_channels", json!([64, 64, 64, 32])),
        ("scaling_factor", json!(0)),
        ("shift_factor", json!("x")),
    ] {
        let error = config(key, value).unwrap_err().to_string();
        assert!(error.contains(key) || key == "shift_factor", "{key}: {error}");
    }
    assert!(config("num_encoder_blocks", json!([1, 3, 3, 1_000_000])).is_err());
    assert!(config("latent_channels", json!(0)).is_err());
}
