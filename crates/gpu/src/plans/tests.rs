//! Plans for cards that are only described: every convolution and linear layer of Stable Diffusion has an engine that computes
//! it the same way for 1 to 32 rows. Nothing is executed, and no GPU is needed; cuDNN is, with a stub of the
//! driver.

use super::choice::pin;
use super::descriptor::{Descriptor, Kind, Name};
use super::{Card, ConvKey, version};
use crate::data::DType;
use crate::testing::{libraries, with_libraries};

/// Capability, multiprocessors, shared memory of a block, second cache, memory, name: by hand, from NVIDIA's tables.
const CARDS: [(u32, u32, u32, u64, u64, &str); 3] = [
    (
        800,
        108,
        166_912,
        41_943_040,
        85_029_158_912,
        "NVIDIA A100-SXM4-80GB",
    ),
    (
        890,
        128,
        101_376,
        75_497_472,
        25_386_352_640,
        "NVIDIA GeForce RTX 4090",
    ),
    (
        900,
        132,
        232_448,
        52_428_800,
        85_029_158_912,
        "NVIDIA H100 80GB HBM3",
    ),
];

fn described((sm, count, shared, cache, memory, name): (u32, u32, u32, u64, u64, &str)) -> Card {
    let text = format!(
        r#"{{"deviceVer": {sm}, "driverVer": 13000, "cudaDeviceId": 0, "maxGridSize": [2147483647, 65535, 65535],
        "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": {count}, "smCountOrigin": 0,
        "warpSize": 32, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": {shared},
        "oversizedSharedMemoryPerBlock": 0, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,
        "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0,
        "supportCoopLaunch": 1, "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "l2CacheSize": {cache},
        "deviceName": "{name}", "totalGlobalMem": {memory}}}"#
    );
    let descriptor = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)
        .and_then(|card| card.text(Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, &text))
        .and_then(Descriptor::finished);
    Card::Described(descriptor.unwrap())
}

fn conv(inputs: usize, outputs: usize, size: usize, stride: usize) -> ConvKey {
    ConvKey {
        dtype: DType::F16,
        from: (size, size),
        to: (size / stride, size / stride),
        inputs,
        outputs,
        side: 3,
        stride,
        before: 1,
        bias: true,
    }
}

fn linear(lines: usize, inputs: usize, outputs: usize, bias: bool) -> ConvKey {
    ConvKey {
        from: (lines, 1),
        to: (lines, 1),
        side: 1,
        before: 0,
        bias,
        ..conv(inputs, outputs, 1, 1)
    }
}

/// The convolutions and linear layers of a UNet for latents of this side. A level is its channels and what comes into its
/// blocks; attention is on the levels from `first` on.
fn unet(side: usize, levels: &[(usize, &[usize])], first: usize, text: usize) -> Vec<ConvKey> {
    let mut all = vec![
        conv(8, 320, side, 1),
        conv(16, 320, side, 1),
        conv(320, 8, side, 1),
    ];
    for (level, (channels, inputs)) in levels.iter().enumerate() {
        let (channels, size) = (*channels, side >> level);
        all.extend(inputs.iter().map(|inputs| conv(*inputs, channels, size, 1)));
        // The shortcut is a linear layer over the pixels.
        all.extend(
            inputs
                .iter()
                .map(|inputs| linear(size * size, *inputs, channels, true)),
        );
        all.push(conv(channels, channels, size, 2));
        if level >= first {
            let lines = size * size;
            all.extend([false, true].map(|bias| linear(lines, channels, channels, bias)));
            all.extend([
                linear(lines, channels, 8 * channels, true),
                linear(lines, 4 * channels, channels, true),
            ]);
            all.push(linear(77, text, channels, false));
        }
    }
    all.extend([
        linear(1, 320, 1280, true),
        linear(1, 1280, 1280, true),
        linear(1, 1280, 320, true),
    ]);
    all
}

/// The convolutions of a VAE for latents of this side, and its attention's linear layers.
fn vae(side: usize) -> Vec<ConvKey> {
    let mut all = vec![
        conv(8, 512, side, 1),
        conv(512, 8, side, 1),
        linear(side * side, 512, 512, true),
    ];
    for (level, inputs, outputs) in [
        (0, 512, 512),
        (1, 512, 512),
        (2, 512, 256),
        (2, 256, 256),
        (3, 256, 128),
        (3, 128, 128),
    ] {
        all.push(conv(inputs, outputs, side << level, 1));
        all.push(linear((side << level) * (side << level), inputs, outputs, true));
    }
    let after = |channels, size| ConvKey {
        before: 0,
        ..conv(channels, channels, size, 2)
    };
    all.extend([after(128, 8 * side), after(256, 4 * side), after(512, 2 * side)]);
    all.extend([conv(8, 128, 8 * side, 1), conv(128, 8, 8 * side, 1)]);
    all
}

/// The linear layers of a text encoder of this width, over its 77 tokens. Queries, keys and values are one layer of three widths.
fn clip(width: usize) -> Vec<ConvKey> {
    vec![
        linear(77, width, width, true),
        linear(77, width, 3 * width, true),
        linear(77, width, 4 * width, true),
        linear(77, 4 * width, width, true),
        linear(1, width, width, false),
    ]
}

/// The same layers for a picture that is no square, whose sides in latents need not be even.
fn oblong(layers: Vec<ConvKey>, side: usize, (h, w): (usize, usize)) -> Vec<ConvKey> {
    // A level below has half, rounded up; one of the VAE above has a multiple.
    let scaled = |length: usize, of_side: usize| (of_side * length).div_ceil(side);
    let sides = (0..4).flat_map(|level| [side >> level, side << level]);
    let sides: Vec<usize> = sides.collect();
    let stretched = |(height, width): (usize, usize)| {
        if width > 1 {
            return (scaled(h, height), scaled(w, width));
        }
        // As many lines as there are pixels, or as a text has tokens.
        let pixels = sides.iter().find(|side| **side * **side == height);
        (
            pixels.map_or(height, |side| scaled(h, *side) * scaled(w, *side)),
            1,
        )
    };
    let moved = layers.into_iter().map(|layer| ConvKey {
        from: stretched(layer.from),
        to: stretched(layer.to),
        ..layer
    });
    moved.collect()
}

/// All layers of Stable Diffusion 1.5 and 2.1, SDXL, their VAEs and text encoders for pictures of 512, 768 and 1024 pixels, and of
/// some sizes between.
fn layers() -> Vec<ConvKey> {
    let small: [(usize, &[usize]); 4] = [
        (320, &[320, 640, 960]),
        (640, &[320, 640, 960, 1280, 1920]),
        (1280, &[640, 1280, 1920, 2560]),
        (1280, &[1280, 2560]),
    ];
    let large: [(usize, &[usize]); 3] = [
        (320, &[320, 640, 960]),
        (640, &[320, 640, 960, 1280, 1920]),
        (1280, &[640, 1280, 1920, 2560]),
    ];
    let mut all = Vec::new();
    for side in [64, 96, 128] {
        all.extend(unet(side, &small, 0, 768));
        all.extend(unet(side, &small, 0, 1024));
        all.extend(unet(side, &large, 1, 2048));
        all.extend(vae(side));
    }
    for width in [768, 1024, 1280] {
        all.extend(clip(width));
    }
    // 520x600, and the 832x1216 that SDXL was trained on.
    all.extend(oblong(unet(64, &small, 0, 768), 64, (65, 75)));
    all.extend(oblong(vae(64), 64, (65, 75)));
    all.extend(oblong(unet(128, &large, 1, 2048), 128, (104, 152)));
    let mut seen = std::collections::HashSet::new();
    all.retain(|layer| seen.insert(*layer));
    all
}

#[test]
fn every_layer_has_an_engine_for_all_numbers_of_rows() {
    if libraries().is_none() {
        println!(
            "left out: PENTIMENTO_CUDA_LIBS names no folders with libcudnn.so.9, libcublasLt.so.13 and libnvrtc.so.13"
        );
        return;
    }
    let said = with_libraries("plans::tests::engines_are_found_where_cudnn_is");
    println!("{said}");
    // Only the folder with cuDNN's main library says that it is meant to be there.
    assert!(
        said.contains("layers have an engine") || said.contains("left out"),
        "{said}"
    );
}

#[test]
fn engines_are_found_where_cudnn_is() {
    match version() {
        Err(why) => {
            println!("left out: {why}");
            return;
        }
        Ok(version) => println!("cuDNN {version}"),
    }
    for card in CARDS {
        let (described, layers) = (described(card), layers());
        // In f32 without tensor cores, which would compute TF32.
        for dtype in [DType::F16, DType::F32] {
            let without: Vec<String> = layers
                .iter()
                .filter_map(|layer| pin(&described, ConvKey { dtype, ..*layer }).err())
                .collect();
            let with = layers.len() - without.len();
            println!(
                "{}: {with} of {} layers have an engine in {dtype:?}",
                card.5,
                layers.len()
            );
            assert_eq!(without, Vec::<String>::new());
        }
    }
}
