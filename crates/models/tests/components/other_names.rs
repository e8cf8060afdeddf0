//! The same network from files of other ages: same tensors, other names and shapes, same result.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use pentimento_models::{ClipText, Vae};
use pentimento_testkit::{Tolerance, assert_close};
use pentimento_weights::{Checkpoint, Component, Dtypes};

use crate::support::{CPU, source, text_encoder, tiny, vae, wave};

/// The component of the tiny model with every tensor passed through `change`.
fn changed(file: &'static str, change: impl Fn(String, Tensor) -> (String, Tensor)) -> Component {
    let bytes = tiny("tiny").read(file).unwrap();
    let tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    let tensors: HashMap<_, _> = tensors
        .into_iter()
        .map(|(name, tensor)| change(name, tensor))
        .collect();
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let (folder, _) = file.split_once('/').unwrap();
    Checkpoint::in_memory("old", move |path| (path == file).then(|| bytes.clone()))
        .component(folder, Dtypes::All(DType::F32), &CPU)
        .unwrap()
}

#[test]
fn an_autoencoder_of_2022_decodes_the_same() {
    let component = changed("vae/diffusion_pytorch_model.safetensors", |name, tensor| {
        let old = name
            .replace(".to_q.", ".query.")
            .replace(".to_k.", ".key.")
            .replace(".to_v.", ".value.")
            .replace(".to_out.0.", ".proj_attn.");
        let kernel = old != name && tensor.rank() == 2;
        let tensor = if kernel {
            tensor.unsqueeze(2).unwrap().unsqueeze(3).unwrap()
        } else {
            tensor
        };
        (old, tensor)
    });
    let old = Vae::new(&tiny("tiny").json("vae/config.json").unwrap(), source(&component)).unwrap();
    component.finish().unwrap();
    let latent = wave(&[1, 4, 8, 8], 0.1);
    assert_close(
        "vae",
        &old.decode(&latent).unwrap(),
        &vae().decode(&latent).unwrap(),
        Tolerance::EXACT,
    );
}

#[test]
fn a_text_encoder_without_its_prefix_is_the_same() {
    let component = changed("text_encoder/model.safetensors", |name, tensor| {
        (name.strip_prefix("text_model.").unwrap().to_owned(), tensor)
    });
    let config = tiny("tiny").json("text_encoder/config.json").unwrap();
    let bare = ClipText::new(&config, source(&component)).unwrap();
    component.finish().unwrap();
    let ids = Tensor::new(&[[998_u32, 320, 66, 999, 999]], &CPU).unwrap();
    let expected = text_encoder("quick_gelu").forward(&ids, 1).unwrap();
    assert_close(
        "text",
        &bare.forward(&ids, 1).unwrap(),
        &expected,
        Tolerance::EXACT,
    );
}
