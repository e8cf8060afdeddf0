//! The networks on the emulated device: in f32 they equal diffusers as they do on the CPU, in f16 within its rounding, and a
//! row does not depend on its company.

use candle_core::{DType, Tensor};
use pentimento_gpu::{Emulation, Gpu};
use pentimento_kernels::{Device, GpuDevice, Precision};
use pentimento_models::{UNet, UNetInput, guidance_embedding};
use pentimento_testkit::{Golden, Tolerance, assert_close};

use crate::support::{close, inputs, prepare, text_encoder_on, unet_on, vae_on, wave};

fn emulated(precision: Precision) -> Device {
    let gpu = Gpu::emulated(Emulation::default());
    Device::Gpu(GpuDevice::new(gpu, precision))
}

/// Both precisions, each with its tolerance where that of the CPU is `cpu`.
fn both(cpu: Tolerance) -> [(Device, Tolerance); 2] {
    [
        (emulated(Precision::F32), cpu),
        (emulated(Precision::F16), Tolerance::HALF),
    ]
}

#[test]
fn unet_predictions_equal_diffusers() {
    let golden = Golden::open("components/unet-tiny.safetensors");
    for (device, tolerance) in both(Tolerance::UNET) {
        let unet = unet_on("tiny", &device);
        let inputs = inputs(&golden, &unet);
        for size in ["8x8", "9x7", "12x5", "1x1", "8x8"] {
            let found = unet.forward(inputs.of(size)).unwrap();
            close(size, &found, golden.tensor(&format!("{size}.out")), tolerance);
        }
    }
}

#[test]
fn a_guidance_embedding_is_an_input_like_others() {
    let golden = Golden::open("components/unet-tiny-lcm.safetensors");
    let rows = [0.0, 0.5, 7.0].map(|w| guidance_embedding(w, 256).unwrap());
    let guidance = Tensor::cat(&rows, 0).unwrap();
    for (device, tolerance) in both(Tolerance::UNET) {
        let unet = unet_on("tiny-lcm", &device);
        let inputs = inputs(&golden, &unet);
        for (name, guidance) in [("8x8.out", None), ("8x8.guided", Some(&guidance))] {
            let input = UNetInput {
                guidance_embedding: guidance,
                ..inputs.of("8x8")
            };
            close(
                name,
                &unet.forward(input).unwrap(),
                golden.tensor(name),
                tolerance,
            );
        }
    }
}

#[test]
fn text_states_equal_transformers() {
    let golden = Golden::open("components/clip.safetensors");
    let ids = golden.tensor("ids").to_dtype(DType::U32).unwrap();
    for (device, tolerance) in both(Tolerance::CLIP) {
        let text = text_encoder_on("quick_gelu", &device);
        for skip in [1, 3] {
            let name = format!("quick_gelu.{skip}");
            let found = text.forward(&ids, skip).unwrap();
            close(&name, &found, golden.tensor(&name), tolerance);
        }
    }
}

#[test]
fn moments_and_images_equal_diffusers() {
    let golden = Golden::open("components/vae.safetensors");
    for (device, tolerance) in both(Tolerance::VAE) {
        let vae = vae_on(&device);
        let moments = vae.encode_moments(golden.tensor("8x8.picture")).unwrap();
        close("encode", &moments, golden.tensor("8x8.moments"), tolerance);
        let image = vae.decode(golden.tensor("8x8.latent")).unwrap();
        close("decode", &image, golden.tensor("8x8.decoded"), tolerance);
    }
}

/// Rows of images with several texts each, beside others, and each by itself.
#[test]
fn rows_do_not_meet() {
    for precision in [Precision::F32, Precision::F16] {
        let unet = unet_on("tiny", &emulated(precision));
        let sample = wave(&[2, 4, 5, 7], 0.3);
        let texts = prepare(&unet, &wave(&[3, 77, 32], 0.7));
        let run = |unet: &UNet, images: &[usize], counts: &[usize], picked: &[usize]| {
            let rows = images.iter().map(|image| sample.narrow(0, *image, 1));
            let rows = rows.collect::<Result<Vec<_>, _>>().unwrap();
            let steps = [700.0, 3.0];
            unet.forward(UNetInput {
                sample: &Tensor::cat(&rows, 0).unwrap(),
                timesteps: &images.iter().map(|image| steps[*image]).collect::<Vec<_>>(),
                conditioning: &picked.iter().map(|text| texts[*text].clone()).collect::<Vec<_>>(),
                rows: counts,
                guidance_embedding: None,
                merging: &[],
            })
            .unwrap()
        };
        let together = run(&unet, &[0, 1], &[2, 1], &[1, 0, 2]);
        for (row, (image, text)) in [(0, 1), (0, 0), (1, 2)].into_iter().enumerate() {
            assert_close(
                &format!("image {image} with text {text}"),
                &run(&unet, &[image], &[1], &[text]),
                &together.narrow(0, row, 1).unwrap(),
                Tolerance::EXACT,
            );
        }
        // The same program again, and one of a copy.
        assert_close(
            "again",
            &run(&unet.clone(), &[0, 1], &[2, 1], &[1, 0, 2]),
            &together,
            Tolerance::EXACT,
        );
    }
}

#[test]
fn states_of_a_text_take_the_bytes_that_were_announced() {
    for precision in [Precision::F32, Precision::F16] {
        let unet = unet_on("tiny", &emulated(precision));
        let prepared = prepare(&unet, &wave(&[1, 77, 32], 0.3)).remove(0);
        assert_eq!(prepared.size_bytes(), unet.kv_bytes(prepared.shape()));
    }
}
