//! Prompts into text states, as diffusers' `encode_prompt`, with longer prompts cut into chunks of 75 tokens.

use candle_core::{Device, Tensor};
use pentimento_models::{ClipText, ClipTokenizer, Conditioning, ConditioningShape};

use crate::PipelineError;

/// What steers the images of one request.
#[derive(Clone, Debug)]
pub struct RequestConditioning {
    /// Of the prompt: T is a multiple of 77.
    pub cond: Conditioning,
    /// Of the negative prompt, of the same shape; present only when classifier-free guidance needs it.
    pub uncond: Option<Conditioning>,
}

/// The tokens of the prompt and, under guidance, of the negative prompt.
#[derive(Clone, Debug)]
pub(crate) struct Prompts {
    pub(crate) positive: Vec<u32>,
    pub(crate) negative: Option<Vec<u32>>,
    /// 1 is the text encoder's last layer. Only the prompt skips layers: diffusers' `encode_prompt` takes the
    /// negative prompt from the last layer always, and so do we.
    pub(crate) clip_skip: usize,
}

/// The prompts of one request on their way to text states, chunk by chunk.
#[derive(Debug)]
pub(crate) struct PromptEncoding {
    positive: Chunks,
    negative: Option<Chunks>,
}

/// One prompt: every chunk by itself, so that its states do not depend on how many chunks stand beside it.
#[derive(Debug)]
struct Chunks {
    ids: Vec<Vec<u32>>,
    /// One for each chunk that is encoded, `(1, 77, D)`.
    states: Vec<Tensor>,
    clip_skip: usize,
}

impl PromptEncoding {
    /// Cuts both prompts into the same number of chunks: the shorter one is filled up with empty ones,
    /// since the two are rows of one forward.
    pub(crate) fn new(tokenizer: &ClipTokenizer, prompts: &Prompts) -> Self {
        let positive = tokenizer.chunks(&prompts.positive);
        let negative = prompts.negative.as_ref().map(|tokens| tokenizer.chunks(tokens));
        let chunks = positive.len().max(negative.as_ref().map_or(0, Vec::len));
        let filled_up = |mut ids: Vec<Vec<u32>>, clip_skip| {
            ids.resize(chunks, tokenizer.empty_chunk());
            let states = Vec::with_capacity(chunks);
            Chunks {
                ids,
                states,
                clip_skip,
            }
        };
        Self {
            positive: filled_up(positive, prompts.clip_skip),
            negative: negative.map(|ids| filled_up(ids, 1)),
        }
    }

    /// The shape of each row's conditioning: a multiple of 77 tokens.
    pub(crate) fn shape(&self) -> ConditioningShape {
        ConditioningShape::of_text(self.positive.ids.iter().map(Vec::len).sum())
    }

    /// Rows: 2 with a negative prompt, else 1.
    pub(crate) const fn rows(&self) -> usize {
        if self.negative.is_some() { 2 } else { 1 }
    }

    /// Encodes the next chunk. False when there was none left.
    pub(crate) fn advance(&mut self, text: &ClipText, device: &Device) -> Result<bool, PipelineError> {
        let mut prompts = [Some(&mut self.positive), self.negative.as_mut()]
            .into_iter()
            .flatten();
        let Some(prompt) = prompts.find(|prompt| prompt.states.len() < prompt.ids.len()) else {
            return Ok(false);
        };
        let chunk = &prompt.ids[prompt.states.len()];
        // (1, 77)
        let ids = Tensor::new(chunk.as_slice(), device)?.unsqueeze(0)?;
        prompt.states.push(text.forward(&ids, prompt.clip_skip)?);
        Ok(true)
    }

    /// The states of all chunks, once all are encoded.
    pub(crate) fn into_conditioning(self) -> Result<RequestConditioning, PipelineError> {
        let joined = |prompt: Chunks| Tensor::cat(&prompt.states, 1).map(Conditioning::from_text);
        Ok(RequestConditioning {
            cond: joined(self.positive)?,
            uncond: self.negative.map(joined).transpose()?,
        })
    }
}
