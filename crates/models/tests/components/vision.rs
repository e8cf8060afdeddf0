//! CLIP's image encoder against transformers (`tests/golden/generate/ip_adapter.py`).

use pentimento_models::{ClipVision, ClipVisionConfig, Device, LayerSource, VisionOutput};
use pentimento_testkit::{Golden, Tolerance, assert_close};
use pentimento_weights::{Checkpoint, Component, Dtypes};

use crate::support::{CPU, On, close, source, wave};

const WEIGHTS: &str = "image_encoder/model.safetensors";

/// The encoder in the golden file, with one of the activations.
pub(crate) fn encoder(golden: &Golden, activation: &str, device: On<'_>) -> ClipVision {
    let tensors = golden.names().into_iter().filter_map(|name| {
        let bare = name.strip_prefix("weights.")?;
        Some((bare.to_owned(), golden.tensor(name).clone()))
    });
    let file = safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap();
    let files = Checkpoint::in_memory("m", move |path| (path == WEIGHTS).then(|| file.clone()));
    let weights = files.component("image_encoder", Dtypes::Stored, &CPU).unwrap();
    let mut config = golden.about()["config"].clone();
    config["hidden_act"] = activation.into();
    let config = serde_json::from_value(config).unwrap();
    let source = LayerSource::new(weights.var_builder(), device);
    let encoder = ClipVision::new(&config, source).unwrap();
    weights.finish().unwrap();
    encoder
}

#[test]
fn embedding_and_states_equal_transformers() {
    let golden = Golden::open("ip_adapter/vision.safetensors");
    for activation in ["gelu", "quick_gelu"] {
        let encoder = encoder(&golden, activation, &Device::Cpu);
        for (name, wanted) in [
            ("embedding", VisionOutput::Embedding),
            ("penultimate", VisionOutput::Penultimate),
        ] {
            let found = encoder.forward(golden.tensor("pixels"), wanted).unwrap();
            let name = format!("{activation}.{name}");
            close(&name, &found, golden.tensor(&name), Tolerance::CLIP);
        }
    }
}

#[test]
fn a_picture_is_the_same_alone_and_in_slices_and_of_one_size() {
    let config = serde_json::json!({
        "hidden_size": 16, "intermediate_size": 24, "projection_dim": 12, "num_hidden_layers": 18,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    });
    let config: ClipVisionConfig = serde_json::from_value(config).unwrap();
    let weights = Component::seeded(5, Dtypes::Stored, &CPU);
    let encoder = ClipVision::new(&config, source(&weights)).unwrap();
    let pixels = wave(&[3, 3, 28, 28], 0.2);
    for (wanted, slices) in [(VisionOutput::Embedding, 3), (VisionOutput::Penultimate, 3)] {
        let all = encoder.forward(&pixels, wanted).unwrap();
        assert_eq!(encoder.slices(wanted), slices);
        for row in 0..3 {
            let one = pixels.narrow(0, row, 1).unwrap();
            let mut pass = encoder.begin(&one, wanted).unwrap();
            for _ in 1..slices {
                assert!(encoder.advance(&mut pass).unwrap().is_none());
            }
            let alone = encoder.advance(&mut pass).unwrap().unwrap();
            assert_close("row", &alone, &all.narrow(0, row, 1).unwrap(), Tolerance::EXACT);
            assert!(encoder.advance(&mut pass).is_err());
        }
    }
    assert!(encoder.size_bytes() > 0);
    let error = encoder.begin(&wave(&[1, 3, 28, 27], 0.0), VisionOutput::Embedding);
    assert_eq!(
        error.unwrap_err().to_string(),
        "pixels has shape [1, 3, 28, 27], expected (B, 3, 28, 28)"
    );
}
