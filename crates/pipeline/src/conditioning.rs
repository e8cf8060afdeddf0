//! Prompts into text states, as diffusers' `encode_prompt`, with longer prompts cut into chunks of 75 tokens.

use candle_core::{Device, Tensor};
use pentimento_models::{ClipText, ClipTokenizer, Conditioning};

use crate::PipelineError;

/// What steers the images of one request.
#[derive(Clone, Debug)]
pub struct RequestConditioning {
    /// Of the prompt: T is a multiple of 77.
    pub cond: Conditioning,
    /// Of the negative prompt, of the same shape; present only when classifier-free guidance needs it.
    pub uncond: Option<Conditioning>,
}

/// The prompt and, under guidance, the negative prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts<'a> {
    pub(crate) positive: &'a str,
    pub(crate) negative: Option<&'a str>,
    /// 1 is the text encoder's last layer. Only the prompt skips layers: diffusers' `encode_prompt` takes the
    /// negative prompt from the last layer always, and so do we.
    pub(crate) clip_skip: usize,
}

/// Encodes both prompts to the same number of tokens: the shorter one is filled up with empty chunks,
/// since the two are rows of one forward.
pub(crate) fn encode(
    tokenizer: &ClipTokenizer,
    text: &ClipText,
    prompts: Prompts<'_>,
    device: &Device,
) -> Result<RequestConditioning, PipelineError> {
    let positive = tokenizer.encode_chunks(prompts.positive)?;
    let negative = prompts
        .negative
        .map(|prompt| tokenizer.encode_chunks(prompt))
        .transpose()?;
    let chunks = positive.len().max(negative.as_ref().map_or(0, Vec::len));
    let empty = tokenizer.encode("")?;
    let states = |mut ids: Vec<Vec<u32>>, clip_skip: usize| -> Result<Conditioning, PipelineError> {
        ids.resize(chunks, empty.clone());
        let mut states = Vec::with_capacity(chunks);
        // Chunk by chunk, so that a prompt's states do not depend on how many chunks stand beside it.
        for chunk in &ids {
            states.push(text.forward(&row(chunk, device)?, clip_skip)?);
        }
        Ok(Conditioning::from_text(Tensor::cat(&states, 1)?))
    };
    Ok(RequestConditioning {
        cond: states(positive, prompts.clip_skip)?,
        uncond: negative.map(|ids| states(ids, 1)).transpose()?,
    })
}

/// Token ids as `(1, 77)`.
fn row(ids: &[u32], device: &Device) -> candle_core::Result<Tensor> {
    Tensor::new(ids, device)?.unsqueeze(0)
}
