//! The embedded demo model: a small Stable Diffusion 1.5 shaped model, really trained on drawn scenes, as a diffusers folder.
//!
//! The weights are zstd-compressed inside the binary and are decompressed when asked for; nothing is cached here.
//! `MODEL_CARD.md` says what the model can do, and `training/` holds the scripts that made it.

mod vocabulary;

/// Why an embedded file could not be read; only a broken build can cause it.
#[derive(Debug, thiserror::Error)]
pub enum DemoModelError {
    /// The compressed bytes of a file are damaged.
    #[error("the embedded file {path} cannot be decompressed")]
    Decompress {
        /// The file's path in the model folder.
        path: &'static str,
        /// What zstd said.
        source: std::io::Error,
    },
    /// The merges, from which the vocabulary is derived, are not text.
    #[error("the embedded tokenizer merges are not UTF-8")]
    Merges(#[from] std::str::Utf8Error),
}

/// How the bytes of a file are held in the binary.
enum Blob {
    Plain(&'static [u8]),
    Zstd(&'static [u8]),
    /// `tokenizer/vocab.json` is derived from the merges instead of being stored.
    Vocabulary,
}

macro_rules! plain {
    ($path:literal) => {
        ($path, Blob::Plain(include_bytes!(concat!("../weights/", $path))))
    };
}

macro_rules! zstd {
    ($path:literal) => {
        (
            $path,
            Blob::Zstd(include_bytes!(concat!("../weights/", $path, ".zst"))),
        )
    };
}

const MERGES: &str = "tokenizer/merges.txt";

static FILES: &[(&str, Blob)] = &[
    plain!("model_index.json"),
    plain!("scheduler/scheduler_config.json"),
    plain!("text_encoder/config.json"),
    zstd!("text_encoder/model.safetensors"),
    zstd!("tokenizer/merges.txt"),
    plain!("tokenizer/special_tokens_map.json"),
    plain!("tokenizer/tokenizer_config.json"),
    ("tokenizer/vocab.json", Blob::Vocabulary),
    plain!("unet/config.json"),
    zstd!("unet/diffusion_pytorch_model.safetensors"),
    plain!("vae/config.json"),
    zstd!("vae/diffusion_pytorch_model.safetensors"),
];

/// Every file of the embedded model folder, by its path in the diffusers layout (`unet/config.json`).
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}

/// The decompressed bytes of one file of the embedded model folder, or `None` when it has no such file.
pub fn read(path: &str) -> Option<Result<Vec<u8>, DemoModelError>> {
    let (path, blob) = FILES.iter().find(|(name, _)| *name == path)?;
    Some(match blob {
        Blob::Plain(bytes) => Ok(bytes.to_vec()),
        Blob::Zstd(bytes) => {
            zstd::decode_all(*bytes).map_err(|source| DemoModelError::Decompress { path, source })
        }
        Blob::Vocabulary => read(MERGES)?
            .and_then(|merges| Ok(vocabulary::json_of(std::str::from_utf8(&merges)?).into_bytes())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};
    use serde_json::Value;

    fn bytes(path: &str) -> Vec<u8> {
        read(path).expect("listed").expect("readable")
    }

    fn json(path: &str) -> Value {
        serde_json::from_slice(&bytes(path)).expect("JSON")
    }

    fn weights_of(component: &str) -> Vec<u8> {
        let path = paths().find(|p| p.starts_with(component) && p.ends_with(".safetensors"));
        bytes(path.expect("a component has weights"))
    }

    #[test]
    fn every_listed_file_is_readable() {
        for path in paths() {
            assert!(!bytes(path).is_empty(), "{path}");
        }
    }

    #[test]
    fn an_unknown_file_is_none() {
        assert!(read("unet/model.safetensors").is_none());
        assert!(read("").is_none());
    }

    #[test]
    fn every_json_file_is_json() {
        for path in paths().filter(|p| p.ends_with(".json")) {
            assert!(json(path).is_object(), "{path}");
        }
    }

    #[test]
    fn every_component_of_the_index_is_present() {
        let index = json("model_index.json");
        for (name, value) in index.as_object().expect("object") {
            if value.get(0).is_some_and(Value::is_string) {
                assert!(paths().any(|p| p.starts_with(&format!("{name}/"))), "{name}");
            }
        }
    }

    #[test]
    fn weights_are_finite_halves() {
        for path in paths().filter(|p| p.ends_with(".safetensors")) {
            let file = bytes(path);
            for (name, tensor) in SafeTensors::deserialize(&file).expect("safetensors").tensors() {
                assert_eq!(tensor.dtype(), Dtype::F16, "{path} {name}");
                // All ones in the exponent is infinity or not a number.
                let finite = tensor.data().chunks_exact(2).all(|b| b[1] & 0x7c != 0x7c);
                assert!(finite, "{path} {name}");
            }
        }
    }

    #[test]
    fn weights_have_the_sizes_that_the_configs_give() {
        let text = json("text_encoder/config.json");
        let size = |key: &str| text[key].as_u64().expect("number") as usize;
        let (width, inner, layers) = (
            size("hidden_size"),
            size("intermediate_size"),
            size("num_hidden_layers"),
        );
        let layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width;
        let table = (size("vocab_size") + size("max_position_embeddings")) * width;
        assert_eq!(count("text_encoder"), table + layers * layer + 2 * width);
        // What diffusers counts for these two configs.
        assert_eq!(count("unet"), 7_941_460);
        assert_eq!(count("vae"), 1_718_807);
    }

    fn count(component: &str) -> usize {
        let file = weights_of(component);
        let tensors = SafeTensors::deserialize(&file).expect("safetensors").tensors();
        tensors
            .iter()
            .map(|(_, t)| t.shape().iter().product::<usize>())
            .sum()
    }

    #[test]
    fn text_encoder_names_have_the_published_prefix() {
        let file = weights_of("text_encoder");
        let tensors = SafeTensors::deserialize(&file).expect("safetensors");
        assert!(tensors.names().iter().all(|n| n.starts_with("text_model.")));
        let table = tensors
            .tensor("text_model.embeddings.token_embedding.weight")
            .expect("table");
        assert_eq!(table.shape(), [49_408, 128]);
    }

    #[test]
    fn the_unet_listens_to_the_text_encoder() {
        assert_eq!(
            json("unet/config.json")["cross_attention_dim"],
            json("text_encoder/config.json")["hidden_size"]
        );
        assert_eq!(
            json("unet/config.json")["in_channels"],
            json("vae/config.json")["latent_channels"]
        );
    }

    #[test]
    fn the_vocabulary_is_clips() {
        let vocabulary = json("tokenizer/vocab.json");
        let id = |token: &str| vocabulary[token].as_u64();
        assert_eq!(vocabulary.as_object().map(serde_json::Map::len), Some(49_408));
        assert_eq!(id("!"), Some(0));
        assert_eq!(id("\""), Some(1));
        assert_eq!(id("!</w>"), Some(256));
        assert_eq!(id("cat</w>"), Some(2368));
        assert_eq!(id("<|startoftext|>"), Some(49_406));
        assert_eq!(id("<|endoftext|>"), Some(49_407));
    }
}
