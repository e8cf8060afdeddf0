//! The UNet against diffusers: latents of every shape, a timestep per row, the guidance embedding, SD 2's variant.

use candle_core::{DType, Tensor};
use pentimento_models::{UNet, UNetInput, guidance_embedding};
use pentimento_testkit::{Golden, Tolerance};
use pentimento_weights::{Checkpoint, Dtypes};

use crate::support::{CPU, close, inputs, source, unet};

const SIZES: [&str; 5] = ["8x8", "9x7", "12x5", "1x1", "16x24"];

#[test]
fn predictions_equal_diffusers_with_a_timestep_per_row() {
    let golden = Golden::open("components/unet-tiny.safetensors");
    let unet = unet("tiny");
    let inputs = inputs(&golden, &unet);
    for size in SIZES {
        let found = unet.forward(inputs.of(size));
        close(
            size,
            &found.unwrap(),
            golden.tensor(&format!("{size}.out")),
            Tolerance::UNET,
        );
    }
}

#[test]
fn a_distilled_unet_takes_a_guidance_embedding_or_none() {
    let golden = Golden::open("components/unet-tiny-lcm.safetensors");
    let unet = unet("tiny-lcm");
    let inputs = inputs(&golden, &unet);
    assert_eq!(unet.config().time_cond_proj_dim, Some(256));
    let rows = [0.0, 0.5, 7.0].map(|w| guidance_embedding(w, 256).unwrap());
    let guidance = Tensor::cat(&rows, 0).unwrap();
    for size in SIZES {
        for (name, guidance) in [("out", None), ("guided", Some(&guidance))] {
            let found = unet.forward(UNetInput {
                guidance_embedding: guidance,
                ..inputs.of(size)
            });
            let name = format!("{size}.{name}");
            close(&name, &found.unwrap(), golden.tensor(&name), Tolerance::UNET);
        }
    }
}

#[test]
fn guidance_scales_are_embedded_as_in_diffusers() {
    let golden = Golden::open("components/embeddings.safetensors");
    let w: Vec<f32> = golden.tensor("w").to_vec1().unwrap();
    let rows: Vec<Tensor> = w
        .into_iter()
        .map(|w| guidance_embedding(f64::from(w), 256).unwrap())
        .collect();
    let found = Tensor::cat(&rows, 0).unwrap();
    close(
        "guidance",
        &found,
        golden.tensor("guidance.256"),
        Tolerance::EMBEDDING,
    );
}

#[test]
fn the_variants_of_later_models_equal_diffusers() {
    let golden = Golden::open("components/unet-sd2.safetensors");
    let tensors = golden.names().into_iter().filter_map(|name| {
        let bare = name.strip_prefix("weights.")?;
        Some((bare.to_owned(), golden.tensor(name).clone()))
    });
    let file = safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap();
    let model = Checkpoint::in_memory("sd2", move |path| {
        (path == "unet/diffusion_pytorch_model.safetensors").then(|| file.clone())
    });
    let component = model.component("unet", Dtypes::All(DType::F32), &CPU).unwrap();
    let config = serde_json::from_value(golden.about()["config"].clone()).unwrap();
    let unet = UNet::new(&config, source(&component)).unwrap();
    component.finish().unwrap();
    let inputs = inputs(&golden, &unet);
    for size in ["8x8", "7x10"] {
        let found = unet.forward(inputs.of(size));
        close(
            size,
            &found.unwrap(),
            golden.tensor(&format!("{size}.out")),
            Tolerance::UNET,
        );
    }
}
