//! The autoencoder against diffusers.

use candle_core::DType;
use pentimento_models::Vae;
use pentimento_testkit::{Golden, Tolerance};
use pentimento_weights::{Checkpoint, Dtypes};

use crate::support::{CPU, close, source, tiny, vae, wave};

#[test]
fn moments_and_images_equal_diffusers() {
    let golden = Golden::open("components/vae.safetensors");
    let vae = vae();
    assert_eq!(vae.config().downscale(), 8);
    for size in ["64x64", "72x40", "8x8"] {
        let moments = vae
            .encode_moments(golden.tensor(&format!("{size}.picture")))
            .unwrap();
        close(
            &format!("{size} encode"),
            &moments,
            golden.tensor(&format!("{size}.moments")),
            Tolerance::VAE,
        );
        let image = vae.decode(golden.tensor(&format!("{size}.latent"))).unwrap();
        close(
            &format!("{size} decode"),
            &image,
            golden.tensor(&format!("{size}.decoded")),
            Tolerance::VAE,
        );
    }
}

/// SDXL's published VAE leaves the range of half precision inside. Weights that are stored as f16 are computed with in f32,
/// so that only what is stored has to fit.
#[test]
fn a_vae_that_is_stored_in_half_precision_does_not_overflow_in_it() {
    const FILE: &str = "vae/diffusion_pytorch_model.safetensors";
    let model = tiny("tiny");
    let bytes = model.read(FILE).unwrap();
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &CPU).unwrap();
    // As large as f16 goes: sums over 36 of them are far beyond 65504.
    let conv_in = tensors.remove("decoder.conv_in.weight").unwrap();
    let large = (conv_in.to_dtype(DType::F32).unwrap() * 20_000.0).unwrap();
    tensors.insert(
        "decoder.conv_in.weight".to_owned(),
        large.to_dtype(DType::F16).unwrap(),
    );
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let files = Checkpoint::in_memory("large", move |path| (path == FILE).then(|| bytes.clone()));
    let decode = |dtypes| {
        let weights = files.component("vae", dtypes, &CPU).unwrap();
        let vae = Vae::new(&model.json("vae/config.json").unwrap(), source(&weights)).unwrap();
        vae.decode(&wave(&[1, 4, 6, 5], 0.3)).unwrap()
    };
    let stored = decode(Dtypes::Stored);
    let values: Vec<f32> = stored.flatten_all().unwrap().to_vec1().unwrap();
    assert!(values.iter().all(|value| value.is_finite()));
    close(
        "stored",
        &stored,
        &decode(Dtypes::All(DType::F32)),
        Tolerance::VAE,
    );
}
