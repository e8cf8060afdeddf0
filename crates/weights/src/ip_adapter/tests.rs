//! Both kinds in both formats, and files that are something else.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use pentimento_testkit::golden_dir;

use super::*;
use crate::{WeightsKind, kind_of};

fn open(name: &str) -> Result<IpAdapterFile, WeightsError> {
    IpAdapterFile::open(&golden_dir().join(name), &ReadProgress::default())
}

/// An adapter whose tensors are zeros of these shapes.
fn made(shapes: &[(&str, &[usize])]) -> Result<IpAdapterAbout, String> {
    let tensors: BTreeMap<String, Tensor> = shapes
        .iter()
        .map(|(name, shape)| {
            let zeros = Tensor::zeros(*shape, DType::F16, &Device::Cpu).unwrap();
            ((*name).to_owned(), zeros)
        })
        .collect();
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let file = TensorFile::from_bytes("m".to_owned(), bytes).unwrap();
    about(&file).map_err(|error| error.to_string())
}

const PROJECTION: [(&str, &[usize]); 4] = [
    ("image_proj.proj.weight", &[32, 6]),
    ("image_proj.norm.weight", &[8]),
    ("ip_adapter.1.to_k_ip.weight", &[12, 8]),
    ("ip_adapter.1.to_v_ip.weight", &[12, 8]),
];

fn with(more: &[(&'static str, &'static [usize])]) -> Result<IpAdapterAbout, String> {
    let mut all: BTreeMap<&str, &[usize]> = PROJECTION.into_iter().collect();
    all.extend(more.iter().copied());
    made(&all.into_iter().collect::<Vec<_>>())
}

#[test]
fn both_kinds_are_found_from_their_tensors_in_both_formats() {
    let resampler = IpAdapterKind::Resampler {
        states: 32,
        hidden: 32,
        heads: 2,
        depth: 4,
        inner: 128,
    };
    let projection = IpAdapterKind::Projection { embedding: 24 };
    for (name, format, kind, tokens, width, layers) in [
        (
            "ip-adapter_sd15.safetensors",
            "safetensors",
            projection,
            4,
            32,
            10,
        ),
        ("ip-adapter-plus_sd15.bin", "pickle", resampler, 6, 32, 10),
        ("ip-adapter_sdxl.bin", "pickle", projection, 4, 56, 11),
        (
            "ip-adapter-plus_sdxl.safetensors",
            "safetensors",
            resampler,
            6,
            56,
            11,
        ),
    ] {
        let name = format!("ip_adapter/{name}");
        let file = open(&name).unwrap();
        let about = file.about();
        assert_eq!(
            (about.kind, about.tokens, about.width),
            (kind, tokens, width),
            "{name}"
        );
        let numbers: Vec<usize> = about.layers.keys().copied().collect();
        assert_eq!(
            numbers,
            (0..layers).map(|i| 2 * i + 1).collect::<Vec<_>>(),
            "{name}"
        );
        assert_eq!(about.base(), None, "{name}");
        let found = kind_of(&golden_dir().join(&name)).unwrap();
        assert_eq!(found.format, format);
        assert_eq!(found.kind, WeightsKind::IpAdapter(Some(about.clone())));
        assert!(file.identity().unwrap().size_bytes() > 0);
    }
    let sdxl = with(&[
        ("image_proj.proj.weight", &[8192, 1]),
        ("image_proj.norm.weight", &[2048]),
        ("ip_adapter.1.to_k_ip.weight", &[12, 2048]),
    ]);
    let sdxl = sdxl.unwrap();
    assert_eq!((sdxl.base(), sdxl.tokens), (Some("sdxl"), 4));
}

#[test]
fn what_is_something_else_is_named() {
    for (name, expected) in [
        (
            "lora/kohya.safetensors",
            "a file without a tensor of an IP-Adapter",
        ),
        ("models/tiny/unet/diffusion_pytorch_model.safetensors", "a UNet"),
        ("single/tiny.ckpt", "a checkpoint"),
        (
            "embedding/half.safetensors",
            "a file without a tensor of an IP-Adapter",
        ),
    ] {
        let error = open(name).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{expected} instead of an IP-Adapter with")),
            "{error}"
        );
    }
    for (more, expected) in [
        (
            ("image_proj.perceiver_resampler.proj_in.weight", &[4, 4][..]),
            "FaceID",
        ),
        (("ip_adapter.0.to_k_lora.down.weight", &[4, 4]), "FaceID"),
        (("image_proj.proj.2.weight", &[4, 4]), "FaceID"),
        (("image_proj.proj.3.weight", &[4]), "full-face"),
    ] {
        let error = with(&[more]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let layers = made(&PROJECTION[2..]).unwrap_err();
    assert!(layers.contains("without its `image_proj`"), "{layers}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    assert!(with(&[]).is_ok());
    for (more, expected) in [
        (("image_proj.proj.weight", &[31, 6][..]), "no tokens of 8"),
        (("image_proj.proj.weight", &[8 * 257, 1]), "at most 256 are taken"),
        (("image_proj.proj.weight", &[32]), "has shape [32]"),
        (("image_proj.proj.weight", &[32, 0]), "has shape [32, 0]"),
        (("image_proj.norm.weight", &[0]), "has shape [0]"),
        (("ip_adapter.1.to_k_ip.weight", &[12, 7]), "tokens of 7 numbers"),
        (
            ("ip_adapter.1.to_k_ip.weight", &[70_000, 8]),
            "has shape [70000, 8]",
        ),
        (
            ("image_proj.latents", &[1, 6, 4]),
            "`image_proj.proj_in.weight` is missing",
        ),
    ] {
        let error = with(&[more]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let error = made(&PROJECTION[..2]).unwrap_err();
    assert!(error.contains("no `ip_adapter.N.to_k_ip.weight`"), "{error}");
    let resampler: &[(&str, &[usize])] = &[
        ("image_proj.latents", &[1, 6, 4]),
        ("image_proj.proj_in.weight", &[4, 5]),
        ("image_proj.proj_out.weight", &[8, 4]),
        ("image_proj.layers.0.1.1.weight", &[16, 4]),
        ("image_proj.layers.0.0.to_q.weight", &[65, 4]),
        ("ip_adapter.1.to_k_ip.weight", &[12, 8]),
    ];
    let error = made(resampler).unwrap_err();
    assert!(error.contains("no heads of 64"), "{error}");
}
