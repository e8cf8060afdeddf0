//! Prompts into text states, as diffusers' `encode_prompt`, in chunks of 75 tokens and with weights.

use candle_core::Tensor;
use pentimento_models::{ClipTokenizer, Conditioning, ConditioningShape};

use crate::PipelineError;
use crate::prompt::{Chunk, PromptTokens, Token, weighted};
use crate::prompt_embedding::EmbeddingSet;
use crate::text_encoder::{StatesFrom, TextEncoder};

/// What steers the images of one request.
#[derive(Clone, Debug)]
pub struct RequestConditioning {
    /// Of the prompt: T is a multiple of 77.
    pub cond: Conditioning,
    /// Of the negative prompt, of the same shape; present only when classifier-free guidance needs it.
    pub uncond: Option<Conditioning>,
}

/// A text encoder of a checkpoint, with the tokenizer that feeds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptEncoder<'a> {
    pub(crate) tokenizer: &'a ClipTokenizer,
    pub(crate) text: &'a TextEncoder,
    /// Whether its states are taken before the final norm, from the last layer but one on: SDXL's two.
    pub(crate) is_raw: bool,
}

/// What stands beside the prompt under guidance.
#[derive(Clone, Debug)]
pub(crate) enum Negative<T> {
    /// There is no guidance.
    Unneeded,
    /// Zeros, as SDXL has them for no negative prompt.
    Zeros,
    Text(T),
}

impl<T> Negative<T> {
    fn as_ref(&self) -> Negative<&T> {
        match self {
            Self::Unneeded => Negative::Unneeded,
            Self::Zeros => Negative::Zeros,
            Self::Text(text) => Negative::Text(text),
        }
    }

    fn text(self) -> Option<T> {
        match self {
            Self::Text(text) => Some(text),
            Self::Unneeded | Self::Zeros => None,
        }
    }

    fn text_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Text(text) => Some(text),
            Self::Unneeded | Self::Zeros => None,
        }
    }

    fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Negative<U>, E> {
        Ok(match self {
            Self::Unneeded => Negative::Unneeded,
            Self::Zeros => Negative::Zeros,
            Self::Text(text) => Negative::Text(map(text)?),
        })
    }
}

/// The prompt and, under guidance, the negative prompt, in the tokens of each encoder.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    pub(crate) positive: Vec<PromptTokens>,
    pub(crate) negative: Negative<Vec<PromptTokens>>,
    /// 1 is the text encoder's last layer. Only the prompt skips layers: diffusers' `encode_prompt` takes the
    /// negative prompt from the last layer always, and so do we.
    pub(crate) clip_skip: u32,
}

/// The prompts of one request on their way to text states, chunk by chunk.
#[derive(Debug)]
pub(crate) struct PromptEncoding {
    positive: Row,
    negative: Negative<Row>,
    /// Of the image, where the UNet is told.
    sizes: Option<[f32; 6]>,
    embeddings: EmbeddingSet,
    /// The embeddings' vectors for each encoder, (V, D).
    tables: Vec<Option<Tensor>>,
}

/// One prompt, as each encoder has it.
#[derive(Debug)]
struct Row(Vec<Encoded>);

/// One prompt for one encoder: every chunk by itself, so that its states do not depend on how many chunks stand beside it.
#[derive(Debug)]
struct Encoded {
    chunks: Vec<Chunk>,
    /// One for each chunk that is encoded, `(1, 77, D)`.
    states: Vec<Tensor>,
    /// Of the first chunk, (1, P).
    pooled: Option<Tensor>,
    clip_skip: usize,
}

impl<'a> PromptEncoder<'a> {
    /// A clip skip beyond the text encoder's first layer stops at that layer.
    fn clamp_clip_skip(self, clip_skip: u32) -> usize {
        let layers = self.text.config().num_hidden_layers;
        // What is taken before the norm begins at the last layer but one.
        let most = if self.is_raw {
            layers.saturating_sub(1)
        } else {
            layers
        };
        (clip_skip as usize).clamp(1, most.max(1))
    }

    /// From which layer the states are taken.
    fn layer(self, clip_skip: usize) -> StatesFrom {
        StatesFrom {
            clip_skip,
            raw_until: self.is_raw.then(|| self.tokenizer.end()),
        }
    }
}

impl PromptEncoding {
    /// Cuts both prompts into the same number of chunks, for all encoders: the shorter one is filled up with empty ones,
    /// since the two are rows of one forward.
    pub(crate) fn new(
        encoders: &[PromptEncoder<'_>],
        prompts: &Prompts,
        embeddings: EmbeddingSet,
        sizes: Option<[f32; 6]>,
    ) -> Result<Self, PipelineError> {
        let row = |tokens: &[PromptTokens], clip_skip: u32| {
            let encoded = encoders.iter().zip(tokens).map(|(encoder, tokens)| {
                Ok(Encoded {
                    chunks: tokens.chunks(encoder.tokenizer)?,
                    states: Vec::new(),
                    pooled: None,
                    clip_skip: encoder.clamp_clip_skip(clip_skip),
                })
            });
            encoded.collect::<Result<Vec<_>, PipelineError>>().map(Row)
        };
        let mut positive = row(&prompts.positive, prompts.clip_skip)?;
        let negative = prompts.negative.as_ref();
        let mut negative = negative.try_map(|tokens| row(tokens, 1))?;
        let rows = || [Some(&positive), negative.as_ref().text()].into_iter().flatten();
        let uses_embeddings = rows().any(Row::uses_embeddings);
        let chunks = rows().map(Row::chunks).max().unwrap_or(1);
        for row in [Some(&mut positive), negative.text_mut()].into_iter().flatten() {
            for (encoded, encoder) in row.0.iter_mut().zip(encoders) {
                encoded.chunks.resize(chunks, Chunk::empty(encoder.tokenizer));
            }
        }
        let table = |encoder: &PromptEncoder<'_>| match uses_embeddings {
            true => embeddings.table(encoder.text),
            false => Ok(None),
        };
        let tables = encoders.iter().map(table).collect::<Result<_, _>>()?;
        Ok(Self {
            positive,
            negative,
            sizes,
            embeddings,
            tables,
        })
    }

    /// The shape of each row's conditioning: a multiple of 77 tokens.
    pub(crate) fn shape(&self) -> ConditioningShape {
        let chunks = self.positive.0.first().map_or(&[][..], |encoded| &encoded.chunks);
        ConditioningShape::of_text(chunks.iter().map(|chunk| chunk.tokens.len()).sum())
    }

    /// Rows: 2 under guidance, else 1.
    pub(crate) const fn rows(&self) -> usize {
        if matches!(self.negative, Negative::Unneeded) {
            1
        } else {
            2
        }
    }

    /// What the vectors of embeddings take.
    pub(crate) fn embedding_bytes(&self) -> usize {
        let tables = self.tables.iter().flatten();
        tables.map(|table| table.elem_count() * size_of::<f32>()).sum()
    }

    /// Encodes the next chunk. False when there was none left.
    pub(crate) fn advance(&mut self, encoders: &[PromptEncoder<'_>]) -> Result<bool, PipelineError> {
        let rows = [Some(&mut self.positive), self.negative.text_mut()];
        let encoded = rows.into_iter().flatten().flat_map(|row| row.0.iter_mut());
        let mut with_encoder = encoded.zip(encoders.iter().zip(&self.tables).cycle());
        let Some((encoded, (encoder, table))) =
            with_encoder.find(|(encoded, _)| encoded.states.len() < encoded.chunks.len())
        else {
            return Ok(false);
        };
        let chunk = &encoded.chunks[encoded.states.len()];
        let vocabulary = encoder.text.config().vocab_size;
        let id = |token: &Token| match token {
            Token::Known(id) => *id,
            // No vocabulary has four thousand million words.
            Token::Vector(number, vector) => {
                u32::try_from(vocabulary + self.embeddings.row(*number, *vector)).unwrap_or(u32::MAX)
            }
        };
        let ids: Vec<u32> = chunk.tokens.iter().map(id).collect();
        let layer = encoder.layer(encoded.clip_skip);
        let states = encoder.text.encode(ids, table.as_ref(), layer)?;
        if encoded.states.is_empty() {
            encoded.pooled = states.pooled;
        }
        encoded.states.push(if chunk.is_plain() {
            states.tokens
        } else {
            weighted(&states.tokens, &chunk.weights)?
        });
        Ok(true)
    }

    /// The states of all chunks, once all are encoded.
    pub(crate) fn into_conditioning(self) -> Result<RequestConditioning, PipelineError> {
        let cond = self.positive.joined(self.sizes)?;
        let uncond = match self.negative {
            Negative::Unneeded => None,
            Negative::Zeros => Some(zeros_like(&cond)?),
            Negative::Text(row) => Some(row.joined(self.sizes)?),
        };
        Ok(RequestConditioning { cond, uncond })
    }
}

/// The same sizes with nothing said.
fn zeros_like(conditioning: &Conditioning) -> Result<Conditioning, PipelineError> {
    let states = conditioning.token_states.iter().map(Tensor::zeros_like);
    Ok(Conditioning {
        token_states: states.collect::<Result<_, _>>()?,
        pooled: conditioning.pooled.as_ref().map(Tensor::zeros_like).transpose()?,
        ..conditioning.clone()
    })
}

impl Row {
    fn chunks(&self) -> usize {
        let chunks = self.0.iter().map(|encoded| encoded.chunks.len());
        chunks.max().unwrap_or(1)
    }

    fn uses_embeddings(&self) -> bool {
        let chunks = self.0.iter().flat_map(|encoded| &encoded.chunks);
        let mut tokens = chunks.flat_map(|chunk| &chunk.tokens);
        tokens.any(|token| matches!(token, Token::Vector(..)))
    }

    /// The states of each encoder, all chunks one after the other.
    fn joined(self, sizes: Option<[f32; 6]>) -> Result<Conditioning, PipelineError> {
        let joined = self.0.iter().map(|encoded| Tensor::cat(&encoded.states, 1));
        Ok(Conditioning {
            token_states: joined.collect::<Result<_, _>>()?,
            // Only one encoder has it.
            pooled: self.0.iter().find_map(|encoded| encoded.pooled.clone()),
            size_conditions: sizes,
            image_tokens: None,
        })
    }
}
