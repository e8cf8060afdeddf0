//! A text encoder that remembers the states of the chunks that it was given last.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};
use pentimento_models::{ClipText, RawStates};

use crate::PipelineError;

/// How many chunks are remembered. Callers repeat themselves: the empty chunk beside each long prompt, a negative prompt that
/// is always the same, one prompt with many seeds.
const CHUNKS: usize = 32;

/// What comes out of an encoder for one chunk.
#[derive(Clone, Debug)]
pub(crate) struct ChunkStates {
    /// (1, 77, D).
    pub(crate) tokens: Tensor,
    /// (1, P); of an encoder with a projection only.
    pub(crate) pooled: Option<Tensor>,
}

/// Which states of a chunk are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatesFrom {
    /// 1 is the last one.
    pub(crate) clip_skip: usize,
    /// The end token's id where the states are taken before the final norm, as SDXL has them.
    pub(crate) raw_until: Option<u32>,
}

/// A text encoder with its latest chunks. A chunk's states depend on its tokens and on the layer, and on nothing else of the
/// request, so they are computed once; the bytes are the same either way.
///
/// An encoder with LoRAs is another one, and begins with nothing remembered.
#[derive(Debug)]
pub struct TextEncoder {
    network: ClipText,
    /// The one used last comes first.
    latest: Mutex<VecDeque<(Vec<u32>, StatesFrom, ChunkStates)>>,
}

impl TextEncoder {
    pub(crate) fn new(network: ClipText) -> Self {
        Self {
            network,
            latest: Mutex::default(),
        }
    }

    /// What the encoder takes in memory with as many chunks as it may remember, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.network.size_bytes().saturating_add(self.chunk_bytes())
    }

    /// The part of [`Self::size_bytes`] that chunks take, and that no copy shares.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        let config = self.network.config();
        let pooled = self.network.pooled_width().unwrap_or(0);
        let ids = config.max_position_embeddings * size_of::<u32>();
        let states = (config.max_position_embeddings * config.hidden_size + pooled) * size_of::<f32>();
        (CHUNKS * (ids + states)) as u64
    }

    /// The states of a chunk of 77 ids, of which those beyond the vocabulary are rows of `vectors`, (V, D). Chunks without such
    /// ids are remembered.
    ///
    /// # Errors
    /// When an id is in neither, or the forward fails.
    pub(crate) fn encode(
        &self,
        ids: Vec<u32>,
        vectors: Option<&Tensor>,
        layer: StatesFrom,
    ) -> Result<ChunkStates, PipelineError> {
        let vocabulary = self.network.config().vocab_size;
        if ids.iter().any(|id| *id as usize >= vocabulary) {
            return self.forward(&ids, vectors, layer);
        }
        if let Some(states) = self.remembered(&ids, layer) {
            return Ok(states);
        }
        let states = self.forward(&ids, None, layer)?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.push_front((ids, layer, states.clone()));
        latest.truncate(CHUNKS);
        Ok(states)
    }

    fn remembered(&self, ids: &[u32], layer: StatesFrom) -> Option<ChunkStates> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let place = latest
            .iter()
            .position(|(its_ids, its_layer, _)| its_ids == ids && *its_layer == layer)?;
        let found = latest.remove(place)?;
        let states = found.2.clone();
        latest.push_front(found);
        Some(states)
    }

    fn forward(
        &self,
        ids: &[u32],
        vectors: Option<&Tensor>,
        layer: StatesFrom,
    ) -> Result<ChunkStates, PipelineError> {
        let StatesFrom { clip_skip, raw_until } = layer;
        // (1, 77)
        let ids = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu)?;
        if let Some(end) = raw_until {
            let states = self.network.forward_raw(&ids, vectors, clip_skip, end)?;
            let RawStates { token_states, pooled } = states;
            return Ok(ChunkStates {
                tokens: token_states,
                pooled,
            });
        }
        let tokens = match vectors {
            Some(vectors) => self.network.forward_with(&ids, vectors, clip_skip)?,
            None => self.network.forward(&ids, clip_skip)?,
        };
        Ok(ChunkStates { tokens, pooled: None })
    }
}

impl Deref for TextEncoder {
    type Target = ClipText;

    fn deref(&self) -> &ClipText {
        &self.network
    }
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::seeded;

    const LAST: StatesFrom = StatesFrom {
        clip_skip: 1,
        raw_until: None,
    };

    fn numbers(states: &ChunkStates) -> Vec<f32> {
        let tokens = states.tokens.flatten_all().unwrap();
        tokens.to_vec1().unwrap()
    }

    fn remembered(text: &TextEncoder) -> usize {
        text.latest.lock().unwrap().len()
    }

    /// Nothing was computed: clones of a tensor share its storage.
    fn is_same(one: &ChunkStates, other: &ChunkStates) -> bool {
        let (one, _) = one.tokens.storage_and_layout();
        let (other, _) = other.tokens.storage_and_layout();
        ptr::eq(&raw const *one, &raw const *other)
    }

    #[test]
    fn a_chunk_is_encoded_once_for_each_layer_and_has_the_states_of_a_forward() {
        let model =
            seeded::stable_diffusion(seeded::Shape::Tiny, 1, &pentimento_models::Device::Cpu).unwrap();
        let text = model.text.as_ref();
        let chunk = |word: u32| -> Vec<u32> { (0..77).map(|place| (place * word) % 1000).collect() };
        let first = text.encode(chunk(3), None, LAST).unwrap();
        let again = text.encode(chunk(3), None, LAST).unwrap();
        assert!(is_same(&first, &again), "it is remembered");
        let ids = Tensor::from_vec(chunk(3), (1, 77), &Device::Cpu).unwrap();
        let forward: Vec<f32> = text
            .network
            .forward(&ids, 1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(numbers(&again), forward);

        let skipped = StatesFrom { clip_skip: 2, ..LAST };
        let earlier = text.encode(chunk(3), None, skipped).unwrap();
        assert_ne!(numbers(&earlier), numbers(&first), "another layer");
        let other = text.encode(chunk(5), None, LAST).unwrap();
        assert_ne!(numbers(&other), numbers(&first), "other tokens");
        assert_eq!(remembered(text), 3);
    }

    #[test]
    fn what_was_used_longest_ago_is_forgotten() {
        let model =
            seeded::stable_diffusion(seeded::Shape::Tiny, 1, &pentimento_models::Device::Cpu).unwrap();
        let text = model.text.as_ref();
        let encode = |word: u32| text.encode(vec![word; 77], None, LAST).unwrap();
        let (first, second) = (encode(0), encode(1));
        for word in 2..u32::try_from(CHUNKS).unwrap() {
            encode(word);
        }
        assert!(
            is_same(&encode(0), &first),
            "all have room, and this one comes first again"
        );
        encode(500);
        assert_eq!(remembered(text), CHUNKS);
        assert!(is_same(&encode(0), &first));
        assert!(!is_same(&encode(1), &second), "it made room for another");
    }

    #[test]
    fn vectors_of_a_request_are_not_remembered() {
        let model =
            seeded::stable_diffusion(seeded::Shape::Tiny, 1, &pentimento_models::Device::Cpu).unwrap();
        let text = model.text.as_ref();
        let (vocabulary, width) = (text.config().vocab_size, text.config().hidden_size);
        let beyond = u32::try_from(vocabulary).unwrap();
        let ids: Vec<u32> = (0..76).chain([beyond]).collect();
        let vectors = |value: f32| Tensor::full(value, (1, width), &Device::Cpu).unwrap();
        let one = text.encode(ids.clone(), Some(&vectors(0.1)), LAST).unwrap();
        let other = text.encode(ids, Some(&vectors(-0.3)), LAST).unwrap();
        assert_ne!(numbers(&one), numbers(&other));
        assert_eq!(remembered(text), 0);
        // A chunk of known words beside them has the states that it has alone.
        let beside = text.encode((0..77).collect(), Some(&vectors(0.1)), LAST).unwrap();
        let alone = text.encode((0..77).collect(), None, LAST).unwrap();
        assert!(is_same(&beside, &alone));
    }
}
