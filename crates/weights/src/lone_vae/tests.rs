//! Layouts of lone VAEs: what they are is found from their tensors.

use std::path::PathBuf;

use super::*;
use crate::Checkpoint;

fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(path)
}

fn config(path: &str) -> Result<Value, WeightsError> {
    Checkpoint::vae(&golden(path))?.json(CONFIG)
}

#[test]
fn every_layout_is_known_by_its_tensors() {
    for (path, class, latent_channels) in [
        ("vae/kl.safetensors", None, 4),
        ("single/tiny.ckpt", None, 4),
        ("models/tiny/vae", Some("AutoencoderKL"), 4),
        ("models/tiny", Some("AutoencoderKL"), 4),
        (
            "models/tiny/vae/diffusion_pytorch_model.safetensors",
            Some("AutoencoderKL"),
            4,
        ),
        ("vae/tiny-taesd", Some("AutoencoderTiny"), 4),
        (
            "vae/tiny-taesd/diffusion_pytorch_model.safetensors",
            Some("AutoencoderTiny"),
            4,
        ),
        ("vae/taesd_encoder.pth", Some("AutoencoderTiny"), 4),
        ("vae/taesd_decoder.safetensors", Some("AutoencoderTiny"), 4),
        ("vae/inner_decoder.pth", Some("AutoencoderTiny"), 6),
    ] {
        let config = config(path).unwrap();
        assert_eq!(config["_class_name"].as_str(), class, "{path}");
        assert_eq!(config["latent_channels"], latent_channels, "{path}");
    }
    let inner = config("vae/inner_encoder.pth").unwrap();
    assert_eq!(inner["num_encoder_blocks"], serde_json::json!([1, 3, 3, 3]));
    assert_eq!(inner["num_decoder_blocks"], serde_json::json!([3, 3, 3, 1]));
    assert_eq!(inner["use_midblock_gn"], true);
}

#[test]
fn what_is_no_vae_is_refused_and_a_lone_half_names_the_other() {
    let refused = config("models/tiny/unet/diffusion_pytorch_model.safetensors").unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("its tensors are not those of a VAE"),
        "{refused}"
    );
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("taesd_encoder.pth");
    fs_err::copy(golden("vae/taesd_encoder.pth"), &alone).unwrap();
    let refused = Checkpoint::vae(&alone).unwrap().read(CONFIG).unwrap_err();
    assert!(
        refused.to_string().contains("has no decoder beside it"),
        "{refused}"
    );
    // Twice the same half.
    fs_err::copy(
        golden("vae/taesd_encoder.pth"),
        folder.path().join("taesd_decoder.pth"),
    )
    .unwrap();
    assert!(Checkpoint::vae(&alone).unwrap().read(CONFIG).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(Checkpoint::vae(empty.path()).is_err());
}

#[test]
fn both_files_are_its_identity() {
    let identity = |path: &str| {
        let vae = Checkpoint::vae(&golden(path)).unwrap();
        vae.component_identity("vae", &[CONFIG]).unwrap()
    };
    let pair = identity("vae/taesd_encoder.pth");
    assert_ne!(pair, identity("vae/inner_encoder.pth"));
    assert_eq!(
        pair.size_bytes(),
        identity("vae/taesd_decoder.safetensors").size_bytes()
    );
}
