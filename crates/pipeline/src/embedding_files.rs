//! The files of textual inversions, read once while they do not change: they are small, and prompts of all jobs share them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_weights::{EmbeddingFile, FolderStamp};

use crate::{PipelineError, PromptEmbedding, Triggers};

/// What has been read, by the name in the catalogue. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingFiles(Arc<Mutex<HashMap<String, Held>>>);

#[derive(Clone, Debug)]
struct Held {
    stamp: FolderStamp,
    embeddings: Vec<PromptEmbedding>,
}

/// What is held beyond the jobs that use it, in bytes: some hundred files.
const MOST_BYTES: u64 = 64 << 20;

impl EmbeddingFiles {
    /// The embeddings of an entry's file: one for each token in it. The names of the entry stand for the first one.
    ///
    /// # Errors
    /// [`PipelineError::Embedding`] when it cannot be read or is something else.
    pub fn read(&self, entry: &ModelEntry) -> Result<Vec<PromptEmbedding>, PipelineError> {
        let Source::Path(path) = &entry.source else {
            return Err(PipelineError::UnsupportedSource {
                name: entry.name.clone(),
                reason: "an embedding is read from a local file".to_owned(),
            });
        };
        let stamp = FolderStamp::of(path);
        if let Some(held) = self.held().get(&entry.name).filter(|held| held.stamp == stamp) {
            return Ok(held.embeddings.clone());
        }
        let file = EmbeddingFile::open(path).map_err(|source| PipelineError::Embedding {
            name: entry.name.clone(),
            path: path.display().to_string(),
            source,
        })?;
        let mut embeddings = Vec::new();
        for found in file.embeddings {
            let words = if embeddings.is_empty() {
                words_of(entry)
            } else {
                Vec::new()
            };
            let vectors = found.vectors.into_iter().map(|(_, vectors)| vectors).collect();
            embeddings.push(PromptEmbedding::new(
                &entry.name,
                words.into_iter().chain(found.token),
                vectors,
            )?);
        }
        let mut all = self.held();
        let size = |held: &Held| {
            held.embeddings
                .iter()
                .map(PromptEmbedding::size_bytes)
                .sum::<u64>()
        };
        if all.values().map(size).sum::<u64>() > MOST_BYTES {
            all.clear();
        }
        let held = Held {
            stamp,
            embeddings: embeddings.clone(),
        };
        all.insert(entry.name.clone(), held);
        Ok(embeddings)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The embeddings among these entries whose words a prompt has, by their names in the catalogue. Those that are said to be for
/// another base than the checkpoint are left out.
#[must_use]
pub fn written_in(
    entries: &[Arc<ModelEntry>],
    checkpoint: &ModelEntry,
    prompts: [&str; 2],
) -> Vec<Arc<ModelEntry>> {
    let for_it = |entry: &&Arc<ModelEntry>| {
        let other = entry
            .base
            .zip(checkpoint.base)
            .is_some_and(|(one, other)| one != other);
        entry.kind == ModelKind::Embedding && !other
    };
    let candidates: Vec<&Arc<ModelEntry>> = entries.iter().filter(for_it).collect();
    let numbered = candidates.iter().enumerate();
    let words =
        numbered.flat_map(|(number, entry)| words_of(entry).into_iter().map(move |word| (word, number)));
    let triggers = Triggers::new(words);
    let found = prompts.map(|prompt| triggers.found(prompt));
    let numbers = found[0].union(&found[1]);
    numbers.map(|number| Arc::clone(candidates[*number])).collect()
}

/// The words by which a prompt may call an entry: its name and aliases, with their endings and without.
fn words_of(entry: &ModelEntry) -> Vec<String> {
    const ENDINGS: [&str; 4] = [".safetensors", ".ckpt", ".pt", ".bin"];
    let names = std::iter::once(&entry.name).chain(&entry.aliases);
    let both = names.flat_map(|name| {
        let bare = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending));
        std::iter::once(name.clone()).chain(bare.map(str::to_owned))
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn a_file_is_read_once_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad-hands.safetensors");
        let write = |count: usize| {
            let vectors = Tensor::zeros((count, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
            let tensors = HashMap::from([("emb_params".to_owned(), vectors)]);
            candle_core::safetensors::save(&tensors, &path).unwrap();
        };
        let mut entry = ModelEntry::new("bad-hands.pt", ModelKind::Embedding, Source::Path(path.clone()));
        entry.aliases.push("badhands".to_owned());
        let files = EmbeddingFiles::default();
        assert!(
            files
                .read(&entry)
                .unwrap_err()
                .to_string()
                .contains("`bad-hands.pt`")
        );
        write(2);
        let found = files.read(&entry).unwrap();
        assert_eq!(
            (found.len(), found[0].count(), found[0].widths()),
            (1, 2, vec![8])
        );
        for prompt in ["bad-hands", "(BAD-HANDS.PT:1.2)", "a,badhands"] {
            assert!(found[0].is_in(prompt), "{prompt}");
        }
        assert!(!found[0].is_in("bad-handsome"));
        write(5);
        assert_eq!(files.read(&entry).unwrap()[0].count(), 5);
        fs_err::write(&path, b"no weights").unwrap();
        assert!(files.read(&entry).is_err());
    }
}
