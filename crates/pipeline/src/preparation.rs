//! The first act in slices: between two of them the caller may run something else, or give up.
//!
//! No slice takes longer than one evaluation of an image of the same size, whatever the prompt is.

use std::mem;
use std::sync::Arc;

use pentimento_models::{Conditioning, PreparedConditioning};
use pentimento_types::{Recipe, RgbPicture};

use crate::conditioning::PromptEncoding;
use crate::inpaint::Repainting;
use crate::posterior::DiagonalGaussian;
use crate::prepare::Common;
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion};

/// What a preparation begins with.
#[derive(Clone, Debug)]
pub struct PrepareInput {
    /// What is asked.
    pub recipe: Arc<Recipe>,
    /// The image to start from.
    pub init: RgbPicture,
    /// Only what it paints white is made anew; None is the whole image.
    pub mask: Option<RgbPicture>,
    /// A prompt of more tokens is refused, whatever it would take.
    pub max_prompt_tokens: usize,
}

/// How far a preparation is after a slice.
#[derive(Debug)]
pub enum PrepareStep {
    /// There are more slices.
    Continue,
    /// One state per image of the request, in the order of their seeds.
    Done(Vec<DenoiseState>),
}

/// The work on the states of one request, begun by [`StableDiffusion::begin`].
#[derive(Debug)]
pub struct Preparation {
    request: Arc<Recipe>,
    init: Arc<RgbPicture>,
    /// None where every pixel is changed alike.
    repainting: Option<Repainting>,
    text: Text,
    /// The encoded image.
    encoded: Option<DiagonalGaussian>,
    /// The encoded image with its masked part hidden.
    masked_image: Option<DiagonalGaussian>,
}

/// The prompts, from tokens to the keys and values of the UNet's layers.
#[derive(Debug)]
enum Text {
    Encoding(PromptEncoding),
    /// The prompt is projected, and the negative prompt is to be.
    Projecting(PreparedConditioning, Conditioning),
    Projected(PreparedConditioning, Option<PreparedConditioning>),
    /// A slice failed; there is nothing to go on from.
    Lost,
}

impl StableDiffusion {
    /// Begins to make one state per image of the request: cuts the prompts into tokens and reads the mask.
    ///
    /// # Errors
    /// [`PipelineError::PromptTooLong`]; or when a configuration does not fit.
    pub fn begin(&self, input: PrepareInput) -> Result<Preparation, PipelineError> {
        let PrepareInput {
            recipe: request,
            init,
            mask,
            max_prompt_tokens,
        } = input;
        self.check_prompts(&request, max_prompt_tokens)?;
        let (request, repainting) = self.repainting(request, &init, mask.as_ref())?;
        let text = PromptEncoding::new(&self.tokenizer, self.prompts(&request))?;
        Ok(Preparation {
            request,
            init: Arc::new(init),
            repainting,
            text: Text::Encoding(text),
            encoded: None,
            masked_image: None,
        })
    }

    /// What the preparation will allocate for its prompts and the states will hold until the end, in bytes, about: the
    /// keys and values, and the text states they are made from.
    #[must_use]
    pub fn prompt_bytes(&self, preparation: &Preparation) -> u64 {
        let Text::Encoding(encoding) = &preparation.text else {
            return 0;
        };
        let shape = encoding.shape();
        let states = shape.tokens * self.text.config().hidden_size * size_of::<f32>();
        let row = self.unet.kv_bytes(shape).saturating_add(states as u64);
        row.saturating_mul(encoding.rows() as u64)
    }

    /// Does the next slice.
    ///
    /// # Errors
    /// When the scheduler refuses the run, or a forward fails; the preparation is then of no use any more.
    pub fn advance(&self, preparation: &mut Preparation) -> Result<PrepareStep, PipelineError> {
        let Preparation {
            request,
            init,
            repainting,
            text,
            encoded,
            masked_image,
        } = preparation;
        let (needs_init, needs_masked) = match repainting {
            None => (true, false),
            Some(repainting) => (repainting.needs_init, repainting.needs_masked),
        };
        if !self.advance_text(text)? {
            return Ok(PrepareStep::Continue);
        }
        if needs_init && encoded.is_none() {
            *encoded = Some(self.encode(init)?);
            return Ok(PrepareStep::Continue);
        }
        if let Some(repainting) = repainting.as_ref().filter(|_| needs_masked)
            && masked_image.is_none()
        {
            *masked_image = Some(self.encode_masked(init, &repainting.pixels)?);
            return Ok(PrepareStep::Continue);
        }
        let Text::Projected(cond, uncond) = mem::replace(text, Text::Lost) else {
            return Err(PipelineError::Spent);
        };
        let common = Common {
            cond,
            uncond,
            init: Arc::clone(init),
        };
        let states = match (repainting.take(), encoded.take()) {
            (Some(repainting), encoded) => {
                let encoded = (encoded, masked_image.take());
                self.masked_states(request, common, repainting, encoded)?
            }
            (None, Some(encoded)) => self.plain_states(request, &common, &encoded)?,
            (None, None) => return Err(PipelineError::Spent),
        };
        Ok(PrepareStep::Done(states))
    }

    /// One chunk, or one projection. True when nothing was left to do.
    fn advance_text(&self, text: &mut Text) -> Result<bool, PipelineError> {
        if matches!(text, Text::Projected(..)) {
            return Ok(true);
        }
        *text = match mem::replace(text, Text::Lost) {
            Text::Encoding(mut encoding) => {
                if encoding.advance(&self.text, &self.device)? {
                    Text::Encoding(encoding)
                } else {
                    let states = encoding.into_conditioning()?;
                    let cond = self.unet.prepare(&states.cond)?;
                    match states.uncond {
                        Some(uncond) => Text::Projecting(cond, uncond),
                        None => Text::Projected(cond, None),
                    }
                }
            }
            Text::Projecting(cond, uncond) => Text::Projected(cond, Some(self.unet.prepare(&uncond)?)),
            spent @ (Text::Projected(..) | Text::Lost) => spent,
        };
        Ok(false)
    }

    /// Does all slices.
    pub(crate) fn prepare_all(&self, input: PrepareInput) -> Result<Vec<DenoiseState>, PipelineError> {
        let mut preparation = self.begin(input)?;
        loop {
            match self.advance(&mut preparation)? {
                PrepareStep::Continue => {}
                PrepareStep::Done(states) => return Ok(states),
            }
        }
    }
}
