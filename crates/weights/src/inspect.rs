//! What any weights file or model folder is, for people who found one: kind, base, format, and what of it has no place.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::container::{TensorFile, below};
use crate::embedding_file::EmbeddingFile;
use crate::kind::{
    CHECKPOINT, CONTROL_NET, HYPERNETWORK, IP_ADAPTER, TEXT_ENCODER, TINY_AUTOENCODER, UNET, UPSCALER, VAE,
    named,
};
use crate::lora::{LoraAbout, LoraFile};
use crate::{
    Checkpoint, EncoderSlot, IpAdapterAbout, ReadProgress, UpscalerAbout, WeightsError, ip_adapter, naming,
    upscaler_file,
};

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightsKind {
    /// A whole model, in one file or as a folder.
    Checkpoint {
        /// `sd15`, `sd2`, `sdxl`, or None where nothing tells.
        base: Option<&'static str>,
        /// `inpaint`, `lcm` and others that differ in their UNet; None for the plain one.
        variant: Option<&'static str>,
        /// Whether it is a folder as diffusers writes it.
        is_folder: bool,
    },
    /// One network of a diffusers folder: `a UNet`, `a text encoder`.
    Component(&'static str),
    /// A LoRA or a relative of it.
    Lora(Box<LoraAbout>),
    /// A textual inversion.
    Embedding(Vec<EmbeddingAbout>),
    /// An autoencoder of the base's own size.
    Vae,
    /// One of the TAESD family.
    TinyAutoencoder,
    /// A1111's hypernetwork.
    Hypernetwork,
    /// A ControlNet.
    ControlNet,
    /// An IP-Adapter; None is one of a kind that is not used.
    IpAdapter(Option<IpAdapterAbout>),
    /// A network that enlarges pictures; None is one of a kind that is not used.
    Upscaler(Option<UpscalerAbout>),
    /// Another kind that has a name, with its article; none that this program uses.
    Other(&'static str),
    /// No name in it is known.
    Unknown,
}

/// One word of a textual inversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingAbout {
    /// The word in the file.
    pub token: Option<String>,
    /// For each text encoder the number of vectors and their width.
    pub vectors: Vec<(EncoderSlot, usize, usize)>,
    /// The base whose text encoders are as wide.
    pub base: Option<&'static str>,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsAbout {
    /// What it is.
    pub kind: WeightsKind,
    /// `safetensors`, `pickle` or `folder`.
    pub format: &'static str,
    /// The dtypes of its tensors.
    pub dtypes: Vec<String>,
    /// How many tensors it has.
    pub tensors: usize,
    /// Names of tensors that have no place in a file of its kind.
    pub unplaced: Vec<String>,
    /// What it says of itself: the header's metadata, or the plain values of a pickle.
    pub metadata: BTreeMap<String, String>,
}

/// Looks at a file or a folder. Of tensors only embeddings are read, which are small.
///
/// # Errors
/// When it cannot be read, or is no weights file at all.
pub fn kind_of(path: &Path) -> Result<WeightsAbout, WeightsError> {
    if path.is_dir() && path.join("model_index.json").is_file() {
        return diffusers_folder(path);
    }
    if path.is_dir() {
        return Ok(lora(&LoraFile::open(path)?, "folder"));
    }
    let file = TensorFile::open(path, &ReadProgress::default())?;
    let format = file.format();
    let (kind, unplaced) = match named(&file) {
        Some(CHECKPOINT) => checkpoint(&file),
        Some(VAE) => (WeightsKind::Vae, Vec::new()),
        Some(TINY_AUTOENCODER) => (WeightsKind::TinyAutoencoder, Vec::new()),
        Some(HYPERNETWORK) => (WeightsKind::Hypernetwork, Vec::new()),
        Some(CONTROL_NET) => (WeightsKind::ControlNet, Vec::new()),
        Some(UPSCALER) => (
            WeightsKind::Upscaler(upscaler_file::about(&file).ok()),
            Vec::new(),
        ),
        Some(IP_ADAPTER) => (WeightsKind::IpAdapter(ip_adapter::about(&file).ok()), Vec::new()),
        what => match (LoraFile::open(path), EmbeddingFile::open(path), what) {
            (Ok(file), ..) => return Ok(lora(&file, format)),
            (Err(_), Ok(file), _) => embedding(&file),
            (_, _, Some(what @ (UNET | TEXT_ENCODER))) => (WeightsKind::Component(what), Vec::new()),
            (_, _, Some(what)) => (WeightsKind::Other(what.trim_end_matches(',')), Vec::new()),
            (_, _, None) => (WeightsKind::Unknown, file.tensors().keys().cloned().collect()),
        },
    };
    Ok(WeightsAbout {
        kind,
        format,
        dtypes: file.dtypes(),
        tensors: file.tensors().len(),
        unplaced,
        metadata: file.notes().clone(),
    })
}

fn lora(file: &LoraFile, format: &'static str) -> WeightsAbout {
    let about = file.about();
    WeightsAbout {
        format,
        dtypes: about.dtypes.clone(),
        tensors: about.tensors,
        unplaced: about.strangers.clone(),
        metadata: about.metadata.clone(),
        kind: WeightsKind::Lora(Box::new(about)),
    }
}

fn embedding(file: &EmbeddingFile) -> (WeightsKind, Vec<String>) {
    let about = file.embeddings.iter().map(|embedding| {
        let sizes = embedding.vectors.iter();
        let sizes = sizes
            .filter_map(|(slot, tensor)| tensor.dims2().ok().map(|(count, width)| (*slot, count, width)));
        let vectors: Vec<_> = sizes.collect();
        EmbeddingAbout {
            token: embedding.token.clone(),
            base: match *vectors {
                [(EncoderSlot::ByWidth, _, 768)] => Some("sd15"),
                [(EncoderSlot::ByWidth, _, 1024)] => Some("sd2"),
                [(EncoderSlot::ByWidth, _, 1280)] | [_, _] => Some("sdxl"),
                _ => None,
            },
            vectors,
        }
    });
    (WeightsKind::Embedding(about.collect()), file.unmatched.clone())
}

/// A checkpoint in one file, by its text encoders and the first convolution of its UNet.
fn checkpoint(file: &TensorFile) -> (WeightsKind, Vec<String>) {
    const PARTS: [&str; 5] = [
        "model.diffusion_model.",
        "first_stage_model.",
        "cond_stage_model.",
        "conditioner.",
        "model_ema.",
    ];
    /// Constants of the training schedule, and what training frameworks count.
    const CONSTANTS: [&str; 10] = [
        "alphas_cumprod",
        "betas",
        "denoiser.sigmas",
        "log_one_minus_alphas_cumprod",
        "posterior_",
        "sqrt_",
        "logvar",
        "scale_factor",
        "global_step",
        "embedding_manager.",
    ];
    let tensors = file.tensors();
    let has = |prefix: &str| below(tensors, prefix).next().is_some();
    let base = if has("conditioner.embedders.1.") {
        Some("sdxl")
    } else if has("conditioner.embedders.0.") {
        Some("sdxl refiner")
    } else if has("cond_stage_model.model.") {
        Some("sd2")
    } else if has("cond_stage_model.transformer.") {
        Some("sd15")
    } else {
        None
    };
    let first = tensors.get("model.diffusion_model.input_blocks.0.0.weight");
    let channels = first.and_then(|stored| stored.shape.get(1)).copied();
    let is_distilled = has("model.diffusion_model.time_embed.cond_proj.");
    let unplaced = tensors.keys().filter(|name| {
        let starts = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
        !starts(&PARTS) && !starts(&CONSTANTS) && !naming::is_harmless_extra(name)
    });
    let kind = WeightsKind::Checkpoint {
        base,
        variant: variant(channels, is_distilled),
        is_folder: false,
    };
    (kind, unplaced.cloned().collect())
}

fn variant(channels: Option<usize>, is_distilled: bool) -> Option<&'static str> {
    match channels {
        Some(9) => Some("inpaint"),
        Some(8) => Some("instruct-pix2pix"),
        Some(7) => Some("upscaler"),
        Some(5) => Some("depth"),
        _ if is_distilled => Some("lcm"),
        _ => None,
    }
}

/// A folder as diffusers writes it, by the configuration of its UNet.
fn diffusers_folder(path: &Path) -> Result<WeightsAbout, WeightsError> {
    #[derive(Deserialize)]
    struct UNetConfig {
        cross_attention_dim: Option<Value>,
        in_channels: Option<usize>,
        time_cond_proj_dim: Option<usize>,
    }
    let checkpoint = Checkpoint::open(path)?;
    let config: UNetConfig = checkpoint.json("unet/config.json")?;
    let base = match config.cross_attention_dim.as_ref().and_then(Value::as_u64) {
        Some(768) => Some("sd15"),
        Some(1024) => Some("sd2"),
        Some(2048) => Some("sdxl"),
        _ => None,
    };
    Ok(WeightsAbout {
        kind: WeightsKind::Checkpoint {
            base,
            variant: variant(config.in_channels, config.time_cond_proj_dim.is_some()),
            is_folder: true,
        },
        format: "folder",
        dtypes: Vec::new(),
        tensors: 0,
        unplaced: Vec::new(),
        metadata: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pentimento_testkit::golden_dir;

    use super::*;

    fn kind(path: PathBuf) -> WeightsKind {
        kind_of(&path).unwrap().kind
    }

    #[test]
    fn every_kind_of_file_is_named() {
        let golden = golden_dir();
        let WeightsKind::Lora(about) = kind(golden.join("lora/kohya.safetensors")) else {
            panic!("no LoRA");
        };
        assert_eq!(about.ranks, [4]);
        assert!(matches!(kind(golden.join("lora/peft-ia3")), WeightsKind::Lora(_)));
        assert_eq!(
            kind(golden.join("lora/hypernetwork.pt")),
            WeightsKind::Hypernetwork
        );
        let WeightsKind::Embedding(words) = kind(golden.join("embedding/automatic.pt")) else {
            panic!("no embedding");
        };
        assert_eq!(words[0].token.as_deref(), Some("my-cat"));
        assert_eq!(words[0].vectors, [(EncoderSlot::ByWidth, 3, 32)]);
        let single = kind_of(&golden.join("single/tiny.ckpt")).unwrap();
        let plain = |is_folder, base, variant| WeightsKind::Checkpoint {
            base,
            variant,
            is_folder,
        };
        assert_eq!(single.kind, plain(false, Some("sd15"), None));
        assert_eq!(single.unplaced, Vec::<String>::new());
        assert_eq!(single.format, "pickle");
        assert_eq!(
            kind(golden.join("models/tiny-lcm")),
            plain(true, None, Some("lcm"))
        );
        let part = |path: &str| kind(golden.join("models/tiny").join(path));
        assert_eq!(
            part("unet/diffusion_pytorch_model.safetensors"),
            WeightsKind::Component("a UNet")
        );
        assert_eq!(
            part("text_encoder/model.safetensors"),
            WeightsKind::Component("a text encoder")
        );
        assert_eq!(part("vae/diffusion_pytorch_model.safetensors"), WeightsKind::Vae);
        let unknown = kind_of(&golden.join("noise/randn.safetensors")).unwrap();
        assert_eq!(unknown.kind, WeightsKind::Unknown);
        assert_eq!(unknown.unplaced.len(), unknown.tensors);
    }

    /// Files that other people trained, where somebody has put them beside the checkout; none of them is ours to commit.
    #[test]
    fn published_files_are_named() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/real");
        for name in ["taef2_encoder.pth", "taef2_decoder.pth"] {
            if !folder.join(name).exists() {
                println!("{name} is not there and was NOT read");
                continue;
            }
            assert_eq!(kind(folder.join(name)), WeightsKind::TinyAutoencoder, "{name}");
        }
        for (name, count) in [("test_embedding.safetensors", 5), ("learned_embeds.bin", 1)] {
            if !folder.join(name).exists() {
                println!("{name} is not there and was NOT read");
                continue;
            }
            let WeightsKind::Embedding(words) = kind(folder.join(name)) else {
                panic!("{name}");
            };
            assert_eq!(words[0].vectors, [(EncoderSlot::ByWidth, count, 768)], "{name}");
            assert_eq!(words[0].base, Some("sd15"), "{name}");
        }
    }
}
