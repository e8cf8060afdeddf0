//! The source of a catalogue entry → its files: a diffusers folder, a single file, or what is inside the binary.

use pentimento_catalog::{ModelEntry, Source};
use pentimento_weights::Checkpoint;

use crate::PipelineError;

/// The model inside the binary.
pub(crate) fn embedded_demo() -> Checkpoint {
    Checkpoint::in_memory("embedded:demo", read_demo)
}

fn read_demo(path: &str) -> Option<Vec<u8>> {
    pentimento_demo_model::read(path).and_then(Result::ok)
}

/// The demo model's tokenizer is CLIP's own, which every checkpoint of Stable Diffusion has.
fn read_tokenizer(path: &str) -> Option<Vec<u8>> {
    path.starts_with("tokenizer/").then(|| read_demo(path)).flatten()
}

/// The VAE of an entry, whose files answer for `vae/` of a checkpoint.
///
/// # Errors
/// As [`checkpoint`].
pub(super) fn vae(entry: &ModelEntry) -> Result<Checkpoint, PipelineError> {
    match &entry.source {
        Source::Path(path) => {
            let vae = Checkpoint::vae(path).map_err(|source| PipelineError::Weights {
                name: entry.name.clone(),
                source: Box::new(source),
            })?;
            Ok(vae.preferring(entry.variant.as_deref()))
        }
        // The demo model's own.
        Source::Embedded(_) | Source::HuggingFace { .. } | Source::Https(_) => checkpoint(entry),
    }
}

/// The checkpoint of an entry.
///
/// # Errors
/// When its source is of a kind that this version cannot read, or not there.
pub(super) fn checkpoint(entry: &ModelEntry) -> Result<Checkpoint, PipelineError> {
    let unsupported = |reason: String| PipelineError::UnsupportedSource {
        name: entry.name.clone(),
        reason,
    };
    match &entry.source {
        Source::Path(path) if path.is_dir() => {
            let folder = Checkpoint::open(path).map_err(|source| PipelineError::Weights {
                name: entry.name.clone(),
                source: Box::new(source),
            })?;
            Ok(folder.preferring(entry.variant.as_deref()))
        }
        Source::Path(path) => Ok(Checkpoint::single_file(path, read_tokenizer)),
        Source::Embedded(name) if name == "demo" => Ok(embedded_demo()),
        Source::Embedded(name) => Err(unsupported(format!(
            "there is no embedded model `{name}`; the only one is `demo`"
        ))),
        Source::HuggingFace { .. } | Source::Https(_) => Err(unsupported(
            "downloads are not supported in this version; use a local folder".to_owned(),
        )),
    }
}
