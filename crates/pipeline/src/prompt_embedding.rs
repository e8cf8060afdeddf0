//! A textual inversion in memory: the words that stand for it, and its vectors for each text encoder.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use pentimento_models::ClipText;

use crate::PipelineError;
use crate::prompt::{Embeddings, Triggers};

/// A textual inversion (Gal et al., 2022) whose vectors take the place of tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PromptEmbedding {
    name: String,
    words: Vec<String>,
    count: usize,
    /// (n, D) by D, f32, on the host: a text encoder takes those of its width.
    vectors: BTreeMap<usize, Tensor>,
}

impl PromptEmbedding {
    /// The embedding that errors call `name` and prompts call by any of `words`. `vectors` are (n, D), of one D for each text
    /// encoder that it is for.
    ///
    /// # Errors
    /// When they are not all of one n, or there are none.
    pub fn new(
        name: &str,
        words: impl IntoIterator<Item = String>,
        vectors: Vec<Tensor>,
    ) -> candle_core::Result<Self> {
        let mut by_width = BTreeMap::new();
        let mut count = None;
        for vectors in vectors {
            let (n, width) = vectors.dims2()?;
            if n == 0 || width == 0 || count.is_some_and(|count| count != n) {
                candle_core::bail!("the vectors of the encoders are {n} and {count:?}, and must be as many");
            }
            count = Some(n);
            let vectors = vectors.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            by_width.insert(width, vectors.contiguous()?);
        }
        let Some(count) = count else {
            candle_core::bail!("there are no vectors");
        };
        Ok(Self {
            name: name.to_owned(),
            words: words.into_iter().collect(),
            count,
            vectors: by_width,
        })
    }

    /// What it is called in the catalogue.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Vectors that stand for it: as many places of a prompt does it take.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Widths of the text encoders that it is for.
    #[must_use]
    pub fn widths(&self) -> Vec<usize> {
        self.vectors.keys().copied().collect()
    }

    /// What its vectors take in memory.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let bytes = |vectors: &Tensor| vectors.elem_count() * size_of::<f32>();
        self.vectors.values().map(bytes).sum::<usize>() as u64
    }

    /// Whether it has vectors for text encoders of these widths.
    #[must_use]
    pub(crate) fn fits(&self, widths: &[usize]) -> bool {
        widths.iter().all(|width| self.vectors.contains_key(width))
    }

    /// Whether a prompt has one of its words.
    #[must_use]
    pub fn is_in(&self, prompt: &str) -> bool {
        let words = Triggers::new(self.words.iter().map(|word| (word, 0)));
        !words.found(prompt).is_empty()
    }
}

/// The embeddings that may occur in the prompts of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct EmbeddingSet {
    triggers: Triggers,
    counts: Vec<usize>,
    all: Vec<PromptEmbedding>,
}

impl EmbeddingSet {
    /// Of two embeddings with the same word the first one counts.
    pub(crate) fn new(embeddings: &[PromptEmbedding]) -> Self {
        let numbered = embeddings.iter().enumerate();
        let words =
            numbered.flat_map(|(number, embedding)| embedding.words.iter().map(move |word| (word, number)));
        Self {
            triggers: Triggers::new(words),
            counts: embeddings.iter().map(PromptEmbedding::count).collect(),
            all: embeddings.to_vec(),
        }
    }

    /// As a prompt is read with them.
    pub(crate) fn to_read(&self) -> Embeddings<'_> {
        Embeddings {
            triggers: (!self.triggers.is_empty()).then_some(&self.triggers),
            vectors: &self.counts,
        }
    }

    /// The vectors of all of them, one after the other, as wide as a text encoder: (V, D). None without embeddings.
    pub(crate) fn table(&self, text: &ClipText) -> Result<Option<Tensor>, PipelineError> {
        if self.all.is_empty() {
            return Ok(None);
        }
        let width = text.config().hidden_size;
        let fitting = |embedding: &PromptEmbedding| {
            embedding
                .vectors
                .get(&width)
                .cloned()
                .ok_or_else(|| PipelineError::EmbeddingWidth {
                    name: embedding.name.clone(),
                    found: embedding.widths(),
                    expected: width,
                })
        };
        let vectors = self.all.iter().map(fitting).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(Tensor::cat(&vectors, 0)?))
    }

    /// Where in [`EmbeddingSet::table`] a vector stands.
    pub(crate) fn row(&self, number: usize, vector: usize) -> usize {
        self.counts[..number].iter().sum::<usize>() + vector
    }
}
