//! The files of textual inversions, read once while they do not change: they are small, and prompts of all jobs share them.

use std::collections::HashMap;
use std::mem;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_catalog::{ModelEntry, ModelKind, Source};
use pentimento_weights::{Embedding, EmbeddingFile, FolderStamp, LoraFile};

use crate::{PipelineError, PromptEmbedding, Triggers};

/// What has been read, by the name in the catalogue. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingFiles(Arc<Mutex<HashMap<String, Held>>>);

#[derive(Clone, Debug)]
struct Held {
    stamp: FolderStamp,
    /// None where it could not be read.
    embeddings: Option<Vec<PromptEmbedding>>,
}

impl Held {
    fn size_bytes(&self) -> u64 {
        let embeddings = self.embeddings.iter().flatten();
        embeddings.map(PromptEmbedding::size_bytes).sum()
    }
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
        self.kept(&entry.name, path, || {
            let file = EmbeddingFile::open(path).map_err(|source| PipelineError::Embedding {
                name: entry.name.clone(),
                path: path.display().to_string(),
                source: Box::new(source),
            })?;
            let mut words = words_of(entry);
            let named = file.embeddings.into_iter().map(|found| {
                let words = mem::take(&mut words);
                prompt_embedding(entry, words, found)
            });
            named.collect()
        })
    }

    /// The embeddings that LoRAs bundle and whose tokens a prompt has.
    ///
    /// # Errors
    /// [`PipelineError::Lora`] when a file cannot be read.
    pub fn bundled_in<'a>(
        &self,
        loras: impl IntoIterator<Item = &'a Arc<ModelEntry>>,
        prompts: [&str; 2],
    ) -> Result<Vec<PromptEmbedding>, PipelineError> {
        let mut found = Vec::new();
        for lora in loras {
            let Source::Path(path) = &lora.source else {
                continue;
            };
            let wrap = |source| PipelineError::Lora {
                name: lora.name.clone(),
                path: path.display().to_string(),
                source: Box::new(source),
            };
            found.extend(self.kept(&format!("lora {}", lora.name), path, || {
                let bundled = LoraFile::open(path)
                    .and_then(|file| file.embeddings())
                    .map_err(wrap)?;
                let named = bundled.into_iter();
                named
                    .map(|found| prompt_embedding(lora, Vec::new(), found))
                    .collect()
            })?);
        }
        found.retain(|embedding| prompts.iter().any(|prompt| embedding.is_in(prompt)));
        Ok(found)
    }

    /// The embeddings whose own token, such as `<x>`, a prompt has without naming them: of the entries for which `locate` gives the
    /// place of their files on this machine and which are not among `known`. A prompt without such a token has no file read for it, and a file that cannot
    /// be read has none.
    #[must_use]
    pub fn by_token(
        &self,
        entries: &[Arc<ModelEntry>],
        known: &[Arc<ModelEntry>],
        (checkpoint, prompts): (&ModelEntry, [&str; 2]),
        locate: impl Fn(&Arc<ModelEntry>) -> Option<Arc<ModelEntry>>,
    ) -> Vec<PromptEmbedding> {
        let has_token = |prompt: &&str| prompt.contains('<') && prompt.contains('>');
        if !prompts.iter().any(has_token) {
            return Vec::new();
        }
        let is_new = |entry: &&Arc<ModelEntry>| {
            may_fit(entry, checkpoint) && !known.iter().any(|known| known.name == entry.name)
        };
        let here = entries.iter().filter(is_new).filter_map(locate);
        here.take(MOST_FILES)
            .filter(|entry| !self.is_unreadable(entry))
            .filter_map(|entry| self.read(&entry).ok())
            .flatten()
            .filter(|embedding| prompts.iter().any(|prompt| embedding.is_in(prompt)))
            .collect()
    }

    /// Whether a file could not be read as it is now. Who names it has it read once more, and is told why.
    fn is_unreadable(&self, entry: &ModelEntry) -> bool {
        let Source::Path(path) = &entry.source else {
            return false;
        };
        let failed = self.held().get(&entry.name).cloned();
        failed.is_some_and(|held| held.embeddings.is_none() && held.stamp == FolderStamp::of(path))
    }

    /// What `read` has made of a file, as long as the file stays as it is.
    fn kept(
        &self,
        key: &str,
        path: &Path,
        read: impl FnOnce() -> Result<Vec<PromptEmbedding>, PipelineError>,
    ) -> Result<Vec<PromptEmbedding>, PipelineError> {
        let stamp = FolderStamp::of(path);
        let known = self.held().get(key).filter(|held| held.stamp == stamp).cloned();
        if let Some(embeddings) = known.and_then(|held| held.embeddings) {
            return Ok(embeddings);
        }
        let embeddings = read();
        // What may be read at the next try is not remembered.
        if !embeddings.as_ref().is_err_and(|error| !error.is_permanent()) {
            let held = Held {
                stamp,
                embeddings: embeddings.as_ref().ok().cloned(),
            };
            self.hold(key, held);
        }
        embeddings
    }

    /// Takes one in. All others make room where it would be too much with them.
    fn hold(&self, key: &str, new: Held) {
        let mut all = self.held();
        all.remove(key);
        let held: u64 = all.values().map(Held::size_bytes).sum();
        if held.saturating_add(new.size_bytes()) > MOST_BYTES {
            all.retain(|_, held| held.embeddings.is_none());
        }
        all.insert(key.to_owned(), new);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As an entry's file has it.
fn prompt_embedding(
    entry: &ModelEntry,
    words: Vec<String>,
    found: Embedding,
) -> Result<PromptEmbedding, PipelineError> {
    let vectors = found.vectors.into_iter().map(|(_, vectors)| vectors).collect();
    Ok(PromptEmbedding::new(
        &entry.name,
        words.into_iter().chain(found.token),
        vectors,
    )?)
}

/// So many files are looked into for a token that no entry has for a name.
const MOST_FILES: usize = 256;

/// Whether an entry is an embedding that may be for the checkpoint's base.
fn may_fit(entry: &ModelEntry, checkpoint: &ModelEntry) -> bool {
    let both = entry.base.zip(checkpoint.base);
    entry.kind == ModelKind::Embedding && both.is_none_or(|(its, base)| its == base)
}

/// The embeddings among these entries whose words a prompt has, by their names in the catalogue. Those that are said to be for
/// another base than the checkpoint are left out.
#[must_use]
pub fn written_in(
    entries: &[Arc<ModelEntry>],
    checkpoint: &ModelEntry,
    prompts: [&str; 2],
) -> Vec<Arc<ModelEntry>> {
    let candidates: Vec<&Arc<ModelEntry>> = entries
        .iter()
        .filter(|entry| may_fit(entry, checkpoint))
        .collect();
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

    #[test]
    fn a_token_is_found_without_the_name_of_its_entry() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |name: &str, token: &str| {
            let path = folder.path().join(name);
            let vectors = Tensor::zeros((1, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
            let tensors = HashMap::from([(token.to_owned(), vectors)]);
            candle_core::safetensors::save(&tensors, &path).unwrap();
            Arc::new(ModelEntry::new(name, ModelKind::Embedding, Source::Path(path)))
        };
        let entries = [entry("one", "<birb>"), entry("two", "<cat-toy>")];
        let checkpoint = ModelEntry::new("x", ModelKind::Checkpoint, Source::Path("x".into()));
        let found = |known: &[Arc<ModelEntry>], prompts: [&str; 2]| {
            let locate = |entry: &Arc<ModelEntry>| Some(Arc::clone(entry));
            let found = EmbeddingFiles::default().by_token(&entries, known, (&checkpoint, prompts), locate);
            found
                .iter()
                .map(|embedding| embedding.name().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&[], ["a <birb>", ""]), ["one"]);
        assert_eq!(found(&[], ["a <BIRB>", "(<cat-toy>:1.2)"]), ["one", "two"]);
        assert!(found(&entries[..1], ["a <birb>", ""]).is_empty());
        assert!(found(&[], ["a birb", "<other>"]).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_tried_for_its_token_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad");
        fs_err::write(&path, b"no weights").unwrap();
        let entry = Arc::new(ModelEntry::new(
            "bad",
            ModelKind::Embedding,
            Source::Path(path.clone()),
        ));
        let checkpoint = ModelEntry::new("x", ModelKind::Checkpoint, Source::Path("x".into()));
        let files = EmbeddingFiles::default();
        let found = || {
            files
                .by_token(
                    &[Arc::clone(&entry)],
                    &[],
                    (&checkpoint, ["<birb>", ""]),
                    |entry| Some(Arc::clone(entry)),
                )
                .len()
        };
        assert!(!files.is_unreadable(&entry));
        assert_eq!(found(), 0);
        assert!(files.is_unreadable(&entry));
        assert!(files.read(&entry).is_err(), "named, it is an error as before");
        let vectors = Tensor::zeros((1, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        candle_core::safetensors::save(&HashMap::from([("<birb>".to_owned(), vectors)]), &path).unwrap();
        assert_eq!(found(), 1);
    }

    #[test]
    fn what_is_held_stays_below_the_bound() {
        let files = EmbeddingFiles::default();
        let held = |bytes: u64| {
            let numbers = usize::try_from(bytes / 4).unwrap();
            let vectors = Tensor::zeros((1, numbers), candle_core::DType::F32, &Device::Cpu).unwrap();
            let embedding = PromptEmbedding::new("x", ["x".to_owned()], vec![vectors]).unwrap();
            Held {
                stamp: FolderStamp::default(),
                embeddings: Some(vec![embedding]),
            }
        };
        for number in 0..9 {
            files.hold(&number.to_string(), held(MOST_BYTES / 4));
            let bytes: u64 = files.held().values().map(Held::size_bytes).sum();
            assert!(bytes <= MOST_BYTES, "{bytes} after {number}");
        }
    }

    #[test]
    fn a_lora_brings_its_embeddings_where_a_prompt_has_their_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("style.safetensors");
        let zeros =
            |shape: (usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let tensors = HashMap::from([
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight".to_owned(),
                zeros((2, 8)),
            ),
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight".to_owned(),
                zeros((8, 2)),
            ),
            ("<s1>".to_owned(), zeros((1, 8))),
        ]);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let lora = Arc::new(ModelEntry::new("style", ModelKind::Lora, Source::Path(path)));
        let count = |prompts| {
            EmbeddingFiles::default()
                .bundled_in([&lora], prompts)
                .unwrap()
                .len()
        };
        assert_eq!(count(["a house in <S1>", ""]), 1);
        assert_eq!(count(["a house in style", ""]), 0);
    }
}
