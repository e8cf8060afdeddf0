//! Textual inversion: a file with the vectors that a word stands for, in every form that trainers publish.
//!
//! Forms as in diffusers (`loaders/textual_inversion.py`) and A1111 (`textual_inversion/textual_inversion.py`): the pickle
//! with `string_to_param` and `name`, `emb_params`, one tensor under the token itself, and `clip_l` and `clip_g` for the two
//! text encoders of SDXL.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::container::{Dtypes, ReadError, StoredTensor, TensorFile};
use crate::identity::FileStamp;
use crate::{FileIdentity, ReadProgress, WeightsError, kind};

/// The most vectors of a token: as many as a chunk of the prompt has places.
const MAX_VECTORS: usize = 75;
/// Wider than the hidden states of any text encoder.
const MAX_WIDTH: usize = 8192;
/// The most tokens in one file.
const MAX_TOKENS: usize = 256;
/// The most bytes of a file's vectors in f32, all together: published files have some hundred KiB.
const MAX_BYTES: usize = 16 << 20;
/// The longest token in bytes.
const MAX_TOKEN_BYTES: usize = 256;

/// Which text encoder vectors are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EncoderSlot {
    /// The file does not say: the one whose hidden states are as wide.
    ByWidth,
    /// `text_encoder`: `clip_l`.
    First,
    /// `text_encoder_2`: `clip_g`.
    Second,
}

/// What one word stands for.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// The word that the file itself names; None where it names none, or the placeholder `*`.
    pub token: Option<String>,
    /// (n, D) in f32 on the CPU for each text encoder, n at most 75 and the same for all.
    pub vectors: Vec<(EncoderSlot, Tensor)>,
}

/// A textual inversion file, read.
#[derive(Clone, Debug)]
pub struct EmbeddingFile {
    /// One for each word; mostly there is one.
    pub embeddings: Vec<Embedding>,
    /// Names of tensors that are no part of any.
    pub unmatched: Vec<String>,
    identity: FileIdentity,
}

impl EmbeddingFile {
    /// Reads a file of any form; it is small.
    ///
    /// # Errors
    /// When it cannot be read, has no embedding, one of more than 75 vectors or of a width that no text encoder has, or more
    /// than 16 MiB of vectors.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = TensorFile::open(path, &ReadProgress::default())?;
        let identity = FileIdentity::fixed(FileStamp::of(path)?);
        let (embeddings, unmatched) = all(&file)?;
        file.check_unchanged()?;
        Ok(Self {
            embeddings,
            unmatched,
            identity,
        })
    }

    /// Which bytes it was read from.
    #[must_use]
    pub const fn identity(&self) -> &FileIdentity {
        &self.identity
    }
}

/// Everything that a file of its own has, and the names of what is no part of that.
pub(crate) fn all(file: &TensorFile) -> Result<(Vec<Embedding>, Vec<String>), WeightsError> {
    let (places, unmatched) = places(file);
    if let Some(what) = kind::instead_of_embedding(file, !places.is_empty()) {
        return Err(WeightsError::OtherKind {
            file: file.name().to_owned(),
            found: what.to_owned(),
            wanted: "a textual inversion",
        });
    }
    Ok((read(file, places)?, unmatched))
}

/// Where the vectors of each token are; None for the one that has no name.
pub(crate) type Places = BTreeMap<Option<String>, Vec<(EncoderSlot, String)>>;

/// Finds what a file of its own has.
fn places(file: &TensorFile) -> (Places, Vec<String>) {
    let (mut places, mut unmatched) = (Places::new(), Vec::new());
    let named = file.notes().get("name").filter(|name| is_token(name));
    for (key, stored) in file.tensors() {
        let place = if let Some((_, token)) = inside_bundle(&format!(".{key}")) {
            let token = named.cloned().or(token);
            Some((token, slot(key)))
        } else if is_token(key) && size(stored).is_some() {
            Some((Some(key.clone()), EncoderSlot::ByWidth))
        } else {
            None
        };
        match place {
            Some((token, slot)) => places.entry(token).or_default().push((slot, key.clone())),
            // The numbers of the tokens in the trainer's own vocabulary.
            None if key.starts_with("string_to_token.") => {}
            None => unmatched.push(key.clone()),
        }
    }
    (places, unmatched)
}

/// The token and the slot of a tensor that is bundled in a LoRA: `bundle_emb.<token>.<form>`, or `<token>` in angle brackets.
pub(crate) fn bundled(key: &str) -> Option<(String, EncoderSlot)> {
    if let Some(rest) = key.strip_prefix("bundle_emb.") {
        let (token, _) = inside_bundle(rest)?;
        return is_token(token).then(|| (token.to_owned(), slot(key)));
    }
    let is_named = key.starts_with('<') && key.ends_with('>') && is_token(key);
    is_named.then(|| (key.to_owned(), EncoderSlot::ByWidth))
}

/// What stands before the form's own name, and the token that this name has in it.
fn inside_bundle(key: &str) -> Option<(&str, Option<String>)> {
    if let Some((before, token)) = key.split_once(".string_to_param.") {
        let token = Some(token).filter(|token| *token != "*" && is_token(token));
        return Some((before, token.map(str::to_owned)));
    }
    const FORMS: [&str; 5] = [
        ".emb_params",
        ".clip_l",
        ".clip_g",
        ".text_encoders_0",
        ".text_encoders_1",
    ];
    let before = FORMS.iter().find_map(|form| key.strip_suffix(form))?;
    Some((before, None))
}

fn slot(key: &str) -> EncoderSlot {
    match key.rsplit('.').next() {
        Some("clip_l" | "text_encoders_0") => EncoderSlot::First,
        Some("clip_g" | "text_encoders_1") => EncoderSlot::Second,
        _ => EncoderSlot::ByWidth,
    }
}

/// Whether a name can be a word of a prompt. The names of a network's tensors have dots.
fn is_token(name: &str) -> bool {
    let is_long = name.len() > MAX_TOKEN_BYTES;
    !name.is_empty() && !is_long && !name.contains(['.', ':', '\0', '\n']) && name.trim() == name
}

/// Vectors and width; None where it is no embedding.
fn size(stored: &StoredTensor) -> Option<(usize, usize)> {
    let (count, width) = match *stored.shape {
        [width] => (1, width),
        [count, width] => (count, width),
        _ => return None,
    };
    let fits = (1..=MAX_VECTORS).contains(&count) && (1..=MAX_WIDTH).contains(&width);
    fits.then_some((count, width))
}

/// Reads the vectors of each token.
pub(crate) fn read(file: &TensorFile, places: Places) -> Result<Vec<Embedding>, WeightsError> {
    let refused = |detail: String| WeightsError::NotAModel {
        file: file.name().to_owned(),
        detail,
    };
    if places.len() > MAX_TOKENS {
        let count = places.len();
        return Err(refused(format!(
            "it has {count} embeddings, and at most {MAX_TOKENS} are read"
        )));
    }
    let sizes = places
        .values()
        .flatten()
        .filter_map(|(_, key)| size(&file.tensors()[key]));
    let bytes: usize = sizes.map(|(count, width)| count * width * size_of::<f32>()).sum();
    if bytes > MAX_BYTES {
        return Err(refused(format!(
            "its embeddings take {bytes} bytes, and at most {MAX_BYTES} are read"
        )));
    }
    let mut embeddings = Vec::new();
    for (token, places) in places {
        let mut vectors: Vec<(EncoderSlot, Tensor)> = Vec::new();
        for (slot, key) in places {
            let stored = &file.tensors()[&key];
            let (count, width) = size(stored).ok_or_else(|| {
                let shape = &stored.shape;
                refused(format!(
                    "embedding `{key}` has shape {shape:?}, and at most {MAX_VECTORS} vectors of at most {MAX_WIDTH} numbers \
                     are read"
                ))
            })?;
            if vectors.iter().any(|(other, _)| *other == slot) {
                return Err(refused(format!("embedding `{key}` is there twice")));
            }
            if let Some((_, other)) = vectors.first()
                && other.dims().first() != Some(&count)
            {
                return Err(refused(format!(
                    "embedding `{key}` has {count} vectors, and another number for the other text encoder"
                )));
            }
            let tensor = file.read(
                &key,
                stored,
                &[count, width],
                (Dtypes::All(DType::F32), &Device::Cpu),
            );
            let tensor = tensor.map_err(|error| match error {
                ReadError::Weights(error) => error,
                ReadError::Device(source) => refused(format!("embedding `{key}`: {source}")),
            })?;
            vectors.push((slot, tensor));
        }
        vectors.sort_by_key(|(slot, _)| *slot);
        embeddings.push(Embedding { token, vectors });
    }
    Ok(embeddings)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pentimento_testkit::{Golden, Tolerance, assert_close, golden_dir};

    use super::*;

    fn open(name: &str) -> Result<EmbeddingFile, WeightsError> {
        EmbeddingFile::open(&golden_dir().join(name))
    }

    #[test]
    fn every_form_has_the_vectors_that_diffusers_reads() {
        let golden = Golden::open("embedding/expected.safetensors");
        for full in golden.names() {
            let [name, token, slot] = *full.split('/').collect::<Vec<_>>() else {
                panic!("{full}");
            };
            let file = open(&format!("embedding/{name}")).unwrap();
            assert_eq!(file.unmatched, Vec::<String>::new(), "{full}");
            assert_eq!(file.embeddings.len(), 1, "{full}");
            let embedding = &file.embeddings[0];
            assert_eq!(
                embedding.token.as_deref(),
                Some(token).filter(|token| !token.is_empty()),
                "{full}"
            );
            let slot = match slot {
                "any" => EncoderSlot::ByWidth,
                "first" => EncoderSlot::First,
                _ => EncoderSlot::Second,
            };
            let vectors = embedding.vectors.iter().find(|(of, _)| *of == slot).unwrap();
            assert_close(full, &vectors.1, golden.tensor(full), Tolerance::EXACT);
        }
    }

    #[test]
    fn what_is_no_embedding_is_refused_by_its_kind() {
        for (name, expected) in [
            ("lora/kohya.safetensors", "a LoRA"),
            ("lora/numbered.safetensors", "a LoRA"),
            ("lora/hypernetwork.pt", "a hypernetwork"),
            ("models/tiny/unet/diffusion_pytorch_model.safetensors", "a UNet"),
        ] {
            let error = open(name).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("{expected} instead of a textual inversion")),
                "{error}"
            );
        }
    }

    #[test]
    fn too_many_vectors_or_too_wide_ones_are_refused() {
        let refused = |shape: &[usize]| {
            let bytes = vec![0; shape.iter().product::<usize>() * 2];
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.to_vec(), &bytes)
                .unwrap();
            let file = safetensors::serialize([("emb_params", view)], None).unwrap();
            let file = TensorFile::from_bytes("x".to_owned(), file).unwrap();
            all(&file)
                .map(|(embeddings, _)| embeddings.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(refused(&[75, 32]), Ok(1));
        for shape in [&[76, 32][..], &[2000, 8], &[1, 9000], &[0, 8], &[2, 2, 2], &[]] {
            let error = refused(shape).unwrap_err();
            assert!(error.contains("at most 75 vectors"), "{shape:?}: {error}");
        }
    }

    #[test]
    fn too_many_bytes_of_vectors_are_refused_before_any_is_read() {
        let count = |tokens: usize| {
            let bytes = vec![0; 75 * 8192 * 2];
            let views = (0..tokens).map(|number| {
                let view =
                    safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![75, 8192], &bytes);
                (format!("<{number}>"), view.unwrap())
            });
            let file = safetensors::serialize(views, None).unwrap();
            let file = TensorFile::from_bytes("x".to_owned(), file).unwrap();
            all(&file).map(|(embeddings, _)| embeddings.len())
        };
        assert_eq!(count(6).unwrap(), 6);
        let error = count(7).unwrap_err().to_string();
        assert!(error.contains("at most 16777216"), "{error}");
    }

    #[test]
    fn a_missing_file_is_no_panic() {
        assert!(matches!(
            EmbeddingFile::open(&PathBuf::from("nowhere.pt")),
            Err(WeightsError::Unreadable { .. })
        ));
    }
}
