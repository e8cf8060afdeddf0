//! The first act in slices: between two of them the caller may run something else, or give up.
//!
//! No slice takes longer than one evaluation of an image of the same size, whatever the prompt is.

use std::mem;
use std::sync::Arc;

use pentimento_models::{Conditioning, ConditioningShape, PreparedConditioning};
use pentimento_types::{Inputs, Recipe, RgbImage, Size, Task};

use crate::conditioning::{PromptEncoding, RequestConditioning};
use crate::image_prompt::ImagePromptEncoding;
use crate::img2img::to_planes;
use crate::inpaint::Repainting;
use crate::posterior::{EncodedImage, is_finite};
use crate::prepare::Common;
use crate::prompt_embedding::PromptEmbedding;
use crate::state::DenoiseState;
use crate::task_check::check_task;
use crate::vae_work::VaeWork;
use crate::{PipelineError, StableDiffusion};

/// What a preparation begins with.
#[derive(Clone, Debug)]
pub struct PrepareInput {
    /// What is asked.
    pub recipe: Arc<Recipe>,
    /// What it is made from: an image with a mask or without, or noise; and what the model's IP-Adapter shows it, exactly when
    /// the recipe names one.
    pub images: Inputs<RgbImage>,
    /// What words of the prompts may stand for, beside the vocabulary.
    pub embeddings: Vec<PromptEmbedding>,
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
    /// Of the result.
    size: Size,
    /// None in text to image.
    init: Option<Arc<RgbImage>>,
    /// None where every pixel is changed alike.
    repainting: Option<Repainting>,
    text: Text,
    /// The picture beside the prompt, until its tokens are there.
    image_prompt: Option<ImagePromptEncoding>,
    /// The image on its way through the VAE.
    pass: Option<VaeWork>,
    /// The encoded image.
    encoded: Option<EncodedImage>,
    /// The encoded image with its masked part hidden.
    masked_image: Option<EncodedImage>,
}

/// What is encoded next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encode {
    Init,
    Masked,
}

impl Preparation {
    /// Whether the next slice is one of the VAE's, between which a large tensor is held.
    #[must_use]
    pub fn is_encoding(&self) -> bool {
        matches!(self.text, Text::Projected(..)) && self.to_encode().is_some()
    }

    fn to_encode(&self) -> Option<Encode> {
        let (needs_init, needs_masked) = match &self.repainting {
            None => (self.init.is_some(), false),
            Some(repainting) => (repainting.needs_init, repainting.needs_masked),
        };
        if needs_init && self.encoded.is_none() {
            Some(Encode::Init)
        } else if needs_masked && self.masked_image.is_none() {
            Some(Encode::Masked)
        } else {
            None
        }
    }
}

/// The prompts, from tokens to the keys and values of the UNet's layers.
#[derive(Debug)]
enum Text {
    Encoding(PromptEncoding),
    /// The prompts are encoded, and the picture beside them is to be.
    Seeing(RequestConditioning),
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
    /// [`PipelineError::PromptTooLong`], [`PipelineError::PromptWeight`], [`PipelineError::EmbeddingWidth`],
    /// [`PipelineError::TaskRefused`]; or when a configuration does not fit.
    pub fn begin(&self, input: PrepareInput) -> Result<Preparation, PipelineError> {
        let PrepareInput {
            recipe: mut request,
            images,
            embeddings,
            max_prompt_tokens,
        } = input;
        let (task, size) = (images.task(), images.size());
        if task == Task::TextToImage {
            Arc::make_mut(&mut request).strength = request.strength_for(task);
        }
        check_task(&request, task, self.plan(&request)?.kind(), self.unet.config())?;
        let image_prompt = self.begin_image_prompt(&request, images.ip_adapter().cloned())?;
        let text = self.begin_prompts(&request, &embeddings, (max_prompt_tokens, Some(size)))?;
        let (request, repainting) = self.repainting(request, &images)?;
        Ok(Preparation {
            request,
            size,
            init: images.init().cloned().map(Arc::new),
            repainting,
            text: Text::Encoding(text),
            image_prompt,
            pass: None,
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
        let shape = ConditioningShape {
            image_tokens: self.image_token_count(),
            ..encoding.shape()
        };
        let widths = self
            .encoders()
            .into_iter()
            .map(|encoder| encoder.text.config().hidden_size);
        let states = shape.tokens * widths.sum::<usize>() * size_of::<f32>();
        let row = self.unet.kv_bytes(shape).saturating_add(states as u64);
        row.saturating_mul(encoding.rows() as u64)
            .saturating_add(encoding.embedding_bytes() as u64)
    }

    /// Does the next slice.
    ///
    /// # Errors
    /// When the scheduler refuses the run, or a forward fails; the preparation is then of no use any more.
    pub fn advance(&self, preparation: &mut Preparation) -> Result<PrepareStep, PipelineError> {
        if !self.advance_text(&mut preparation.text, &mut preparation.image_prompt)? {
            return Ok(PrepareStep::Continue);
        }
        if let Some(what) = preparation.to_encode() {
            self.advance_image(preparation, what)?;
            return Ok(PrepareStep::Continue);
        }
        let Preparation {
            request,
            size,
            init,
            repainting,
            text,
            image_prompt: _,
            pass: _,
            encoded,
            masked_image,
        } = preparation;
        let Text::Projected(cond, uncond) = mem::replace(text, Text::Lost) else {
            return Err(PipelineError::Spent);
        };
        let common = Common {
            cond,
            uncond,
            size: *size,
            init: init.clone(),
        };
        let states = match (repainting.take(), encoded.take()) {
            (Some(repainting), encoded) => {
                let encoded = (encoded, masked_image.take());
                self.masked_states(request, common, repainting, encoded)?
            }
            (None, Some(encoded)) => self.plain_states(request, &common, &encoded)?,
            (None, None) if init.is_none() => self.noise_states(request, &common)?,
            (None, None) => return Err(PipelineError::Spent),
        };
        Ok(PrepareStep::Done(states))
    }

    /// One stage of the VAE.
    fn advance_image(&self, preparation: &mut Preparation, what: Encode) -> Result<(), PipelineError> {
        let Preparation {
            size,
            init,
            repainting,
            pass,
            ..
        } = preparation;
        let init = init.as_deref();
        let mut under_way = match (pass.take(), what, repainting, init) {
            (Some(pass), ..) => pass,
            (None, Encode::Masked, Some(repainting), init) => {
                self.begin_encode(self.masked_planes(init, *size, &repainting.pixels))?
            }
            (None, _, _, Some(init)) => self.begin_encode(to_planes(init, self.pixels_per_latent))?,
            (None, ..) => return Err(PipelineError::Spent),
        };
        let Some(moments) = under_way.advance()? else {
            *pass = Some(under_way);
            return Ok(());
        };
        if !is_finite(&moments)? {
            return Err(under_way.not_finite());
        }
        let encoded = match what {
            Encode::Init => &mut preparation.encoded,
            Encode::Masked => &mut preparation.masked_image,
        };
        *encoded = Some(EncodedImage::of(&moments, self.vae.config())?);
        Ok(())
    }

    /// One chunk, or one projection. True when nothing was left to do.
    fn advance_text(
        &self,
        text: &mut Text,
        image_prompt: &mut Option<ImagePromptEncoding>,
    ) -> Result<bool, PipelineError> {
        let mut done = false;
        *text = match mem::replace(text, Text::Lost) {
            Text::Encoding(mut encoding) => {
                if encoding.advance(&self.encoders())? {
                    Text::Encoding(encoding)
                } else {
                    let states = encoding.into_conditioning()?;
                    match image_prompt {
                        Some(_) => Text::Seeing(states),
                        None => self.project_first(states)?,
                    }
                }
            }
            Text::Seeing(mut states) => {
                let picture = image_prompt.as_mut().ok_or(PipelineError::Spent)?;
                match self.advance_image_prompt(picture, states.uncond.is_some())? {
                    None => Text::Seeing(states),
                    Some(shown) => {
                        *image_prompt = None;
                        states.cond.image_tokens = Some(shown.cond);
                        if let Some(uncond) = &mut states.uncond {
                            uncond.image_tokens = shown.uncond;
                        }
                        self.project_first(states)?
                    }
                }
            }
            Text::Projecting(cond, uncond) => Text::Projected(cond, Some(self.project(&uncond)?)),
            Text::Projected(cond, uncond) => {
                done = true;
                Text::Projected(cond, uncond)
            }
            Text::Lost => return Err(PipelineError::Spent),
        };
        Ok(done)
    }

    /// The prompt's keys and values.
    fn project_first(&self, states: RequestConditioning) -> Result<Text, PipelineError> {
        let cond = self.project(&states.cond)?;
        Ok(match states.uncond {
            Some(uncond) => Text::Projecting(cond, uncond),
            None => Text::Projected(cond, None),
        })
    }

    fn project(&self, conditioning: &Conditioning) -> Result<PreparedConditioning, PipelineError> {
        let adapter = self.image_prompter.as_ref().map(|prompter| &*prompter.adapter);
        Ok(self.unet.prepare_with(conditioning, adapter)?)
    }

    /// Makes one state per image of the request; image k draws its noise from seed + k.
    ///
    /// Noise is drawn in diffusers' order: the sample of the encoded image, the start noise, then whatever the
    /// scheduler draws in its steps. An inpainting checkpoint is told that everything is to be repainted.
    ///
    /// # Errors
    /// When the scheduler refuses the run, or a forward fails.
    pub fn prepare(&self, request: &Recipe, init: &RgbImage) -> Result<Vec<DenoiseState>, PipelineError> {
        self.prepare_all(request, Inputs::new(init.clone()))
    }

    /// As [`StableDiffusion::prepare`], of noise and words alone: an image of `size`, by diffusers' `StableDiffusionPipeline`.
    /// Strength counts as 1. Only the start noise is drawn before the steps.
    ///
    /// An inpainting checkpoint sees a picture of which everything is hidden, as in `StableDiffusionInpaintPipeline` at
    /// strength 1 with everything painted.
    ///
    /// # Errors
    /// As [`StableDiffusion::prepare`], and [`PipelineError::TaskRefused`] for a scheduler that inverts an image.
    pub fn prepare_from_noise(
        &self,
        request: &Recipe,
        size: Size,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        self.prepare_all(request, Inputs::from_noise(size))
    }

    /// As [`StableDiffusion::prepare`], but only what `mask` paints white is made anew: white is repainted, black is kept,
    /// with the threshold at half grey, stretched to the size of the image. `Recipe::soft_edge` says how the edge fades.
    ///
    /// With nothing to repaint no evaluation runs, and the result is the input.
    ///
    /// # Errors
    /// As [`StableDiffusion::prepare`].
    pub fn prepare_inpaint(
        &self,
        request: &Recipe,
        init: &RgbImage,
        mask: &RgbImage,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        self.prepare_all(request, Inputs::inpainting(init.clone(), mask.clone()))
    }

    /// Does all slices.
    fn prepare_all(
        &self,
        request: &Recipe,
        images: Inputs<RgbImage>,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        let mut preparation = self.begin(PrepareInput {
            recipe: Arc::new(request.clone()),
            images,
            embeddings: Vec::new(),
            max_prompt_tokens: usize::MAX,
        })?;
        loop {
            match self.advance(&mut preparation)? {
                PrepareStep::Continue => {}
                PrepareStep::Done(states) => return Ok(states),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pentimento_models::Device;
    use pentimento_types::Size;

    use super::*;
    use crate::sample_recipe::sample_recipe;
    use crate::seeded;

    fn input(prompt: &str, guidance_scale: f64) -> PrepareInput {
        let recipe = Recipe {
            prompt: prompt.to_owned(),
            guidance_scale,
            ..sample_recipe()
        };
        let size = Size {
            width: 64,
            height: 64,
        };
        PrepareInput {
            recipe: Arc::new(recipe),
            images: Inputs::new(RgbImage::new(size, vec![90; 64 * 64 * 3]).unwrap()),
            embeddings: Vec::new(),
            max_prompt_tokens: 300,
        }
    }

    #[test]
    fn a_prompt_takes_a_slice_for_each_chunk_and_projection_and_the_image_one_for_each_stage() {
        let model = seeded::stable_diffusion(seeded::Shape::Tiny, 1, &Device::Cpu).unwrap();
        let (stages, _) = model.vae.slices();
        for (prompt, guidance_scale, slices) in [
            ("a boat".to_owned(), 1.0, 3),
            ("a boat".to_owned(), 5.0, 5),
            // Four chunks, and as many empty ones beside them.
            ("boat ".repeat(300), 5.0, 11),
        ] {
            let slices = slices + stages;
            let mut preparation = model.begin(input(&prompt, guidance_scale)).unwrap();
            assert!(model.prompt_bytes(&preparation) > 0);
            for slice in 1..slices {
                let step = model.advance(&mut preparation).unwrap();
                assert!(matches!(step, PrepareStep::Continue), "slice {slice} of {slices}");
                // The image is encoded between the prompts and the last slice, which draws the noise.
                let encodes = (slices - 1 - stages..slices - 1).contains(&slice);
                assert_eq!(preparation.is_encoding(), encodes, "slice {slice} of {slices}");
            }
            let PrepareStep::Done(states) = model.advance(&mut preparation).unwrap() else {
                panic!("slice {slices} is the last one")
            };
            assert_eq!(states.len(), 2);
            let after = model.advance(&mut preparation);
            assert!(matches!(after, Err(PipelineError::Spent)), "{after:?}");
        }
        let refused = model.begin(input(&"boat ".repeat(301), 1.0)).unwrap_err();
        assert!(
            matches!(
                refused,
                PipelineError::PromptTooLong {
                    field: "prompt",
                    found: 301,
                    limit: 300
                }
            ),
            "{refused:?}"
        );
    }
}
