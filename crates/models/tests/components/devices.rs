//! The networks on the emulated device: in f32 they equal diffusers as they do on the CPU, in f16 within its rounding, and a
//! row does not depend on its company.

use candle_core::{DType, Tensor};
use pentimento_gpu::{Emulation, Fault, Gpu, PlannedFault};
use pentimento_kernels::{Device, GpuDevice, Precision};
use pentimento_models::{
    LayerKind, LayerName, LayerPatch, LayerShape, UNet, UNetInput, VisionOutput, guidance_embedding,
};
use pentimento_testkit::{Golden, Tolerance, assert_close};
use pentimento_types::{ErrorKind, HasKind};

use crate::patched::{Change, factors, is_matrix};
use crate::support::{close, inputs, prepare, text_encoder_on, unet_on, vae_on, wave};
use crate::{ip_adapter, sdxl, vision};

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

#[test]
fn pooled_states_and_what_sdxl_adds_equal_the_references() {
    let golden = Golden::open("components/clip-sdxl.safetensors");
    let ids = golden.tensor("ids").to_dtype(DType::U32).unwrap();
    for (device, tolerance) in both(Tolerance::CLIP) {
        let text = sdxl::second_encoder(&device);
        let found = text.forward_raw(&ids, None, 2, 999).unwrap();
        close(
            "states",
            &found.token_states,
            golden.tensor("states.2"),
            tolerance,
        );
        close(
            "pooled",
            &found.pooled.unwrap(),
            golden.tensor("pooled"),
            tolerance,
        );
    }
    let golden = Golden::open("components/unet-sdxl.safetensors");
    let timesteps: Vec<f32> = golden.tensor("steps").to_vec1().unwrap();
    for (device, tolerance) in both(Tolerance::UNET) {
        let unet = sdxl::unet(None, &device);
        let rows = (0..3).map(|row| unet.prepare(&sdxl::conditioning(&golden, row)).unwrap());
        let found = unet.forward(UNetInput {
            sample: golden.tensor("9x7.sample"),
            timesteps: &timesteps,
            conditioning: &rows.collect::<Vec<_>>(),
            rows: &[],
            guidance_embedding: None,
            merging: &[],
            networks: &[],
        });
        close("9x7", &found.unwrap(), golden.tensor("9x7.plain"), tolerance);
    }
}

/// In f16 other tokens may be the nearest, so only f32 is compared.
#[test]
fn merged_tokens_are_those_of_the_package() {
    let golden = Golden::open("merging/unet-tiny.safetensors");
    let unet = unet_on("tiny", &emulated(Precision::F32));
    let inputs = inputs(&golden, &unet);
    let run = |merging: &[bool]| {
        unet.forward(UNetInput {
            merging,
            ..inputs.of("9x7")
        })
        .unwrap()
    };
    let all = run(&[true; 3]);
    close("all", &all, golden.tensor("9x7.out"), Tolerance::UNET);
    // Another program for other images that merge.
    let mixed = run(&[false, true, false]).narrow(0, 1, 1).unwrap();
    assert_close("one", &mixed, &all.narrow(0, 1, 1).unwrap(), Tolerance::EXACT);
}

#[test]
fn embeddings_of_pictures_equal_transformers() {
    let golden = Golden::open("ip_adapter/vision.safetensors");
    for (device, tolerance) in both(Tolerance::CLIP) {
        let encoder = vision::encoder(&golden, "gelu", &device);
        for (name, wanted) in [
            ("gelu.embedding", VisionOutput::Embedding),
            ("gelu.penultimate", VisionOutput::Penultimate),
        ] {
            let found = encoder.forward(golden.tensor("pixels"), wanted).unwrap();
            close(name, &found, golden.tensor(name), tolerance);
        }
    }
}

/// A row without a picture, and two with one of different scales, against the CPU.
#[test]
fn what_rows_are_shown_is_as_on_the_cpu() {
    let sample = wave(&[3, 4, 5, 7], 0.2);
    for config in [ip_adapter::LINEAR, ip_adapter::RESAMPLER] {
        let run = |device: &Device| {
            let unet = unet_on("tiny", device);
            let adapter = ip_adapter::adapter_on(&config, &unet, device);
            let rows = [(0, 0.0), (1, 1.0), (2, 0.5)];
            let rows = rows.map(|(row, scale)| ip_adapter::prepared(&unet, &adapter, row, Some(scale)));
            ip_adapter::forward(&unet, &sample, &[], &rows)
        };
        let expected = run(&Device::Cpu);
        for (device, tolerance) in both(Tolerance::UNET) {
            close("shown", &run(&device), &expected, tolerance);
        }
    }
}

/// Branches beside matrices and other weights in place of norms, against the CPU; the network that was copied stays.
#[test]
fn changed_layers_are_as_on_the_cpu() {
    let golden = Golden::open("components/unet-tiny.safetensors");
    let run = |device: &Device| {
        let network = unet_on("tiny", device);
        let (patched, bytes) = network
            .patched(&mut |_: &LayerName, shape: LayerShape| -> Change {
                Ok(match shape.kind {
                    _ if is_matrix(shape) => {
                        let (down, up) = factors(shape, 3, 0.3);
                        Some(LayerPatch::Branch { down, up })
                    }
                    LayerKind::Norm => Some(LayerPatch::Weights {
                        weight: (wave(&[shape.outputs], 0.2) + 1.0).unwrap(),
                        bias: Some(wave(&[shape.outputs], 0.4)),
                    }),
                    LayerKind::Linear
                    | LayerKind::Pointwise
                    | LayerKind::Conv2d
                    | LayerKind::Patches { .. }
                    | LayerKind::Embedding => None,
                })
            })
            .unwrap();
        assert!(bytes > 0);
        let of = |network: &UNet| network.forward(inputs(&golden, network).of("9x7")).unwrap();
        let before = of(&network);
        let changed = of(&patched);
        assert_close("before", &of(&network), &before, Tolerance::EXACT);
        changed
    };
    let expected = run(&Device::Cpu);
    for (device, tolerance) in both(Tolerance::UNET) {
        close("changed", &run(&device), &expected, tolerance);
    }
}

/// A device without room says so, and goes on once there is some; a lost one stays lost.
#[test]
fn a_full_device_and_a_lost_one_are_told_apart() {
    let gpu = Gpu::emulated(Emulation::default());
    let device = Device::Gpu(GpuDevice::new(gpu.clone(), Precision::F32));
    let unet = unet_on("tiny", &device);
    let golden = Golden::open("components/unet-tiny.safetensors");
    let inputs = inputs(&golden, &unet);
    let used = gpu.used_bytes();
    gpu.set_budget(used + 1);
    let error = unet.forward(inputs.of("8x8")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfDeviceMemory, "{error}");
    assert!(!error.is_device_lost());
    gpu.set_budget(usize::MAX);
    let found = unet.forward(inputs.of("8x8")).unwrap();
    close("8x8", &found, golden.tensor("8x8.out"), Tolerance::UNET);
    let fault = PlannedFault {
        fault: Fault::DeviceLost,
        at: 400,
    };
    let gpu = Gpu::emulated(Emulation {
        fault: Some(fault),
        ..Emulation::default()
    });
    let device = Device::Gpu(GpuDevice::new(gpu, Precision::F32));
    let text = text_encoder_on("quick_gelu", &device);
    let ids = Tensor::zeros((1, 77), DType::U32, &candle_core::Device::Cpu).unwrap();
    let lost = (0..400).find_map(|_| text.forward(&ids, 1).err());
    let lost = lost.expect("the device is lost at some call");
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    assert!(lost.is_device_lost() && text.forward(&ids, 1).unwrap_err().is_device_lost());
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
                networks: &[],
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
