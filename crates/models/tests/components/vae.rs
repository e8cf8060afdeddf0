//! The autoencoder against diffusers.

use pentimento_testkit::{Golden, Tolerance};

use crate::support::{close, vae};

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
