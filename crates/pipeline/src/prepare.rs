//! The parts of the first act, once per job: text states, encoded image, start level and start noise of every image.
//! `preparation.rs` says in which order they run.

use std::sync::Arc;

use candle_core::Tensor;
use pentimento_models::PreparedConditioning;
use pentimento_schedulers::{Latents, NoiseSource, Scheduler, SchedulerPlan, Start};
use pentimento_types::{Recipe, RgbImage, SchedulerKind, Size};

use crate::conditioning::{Negative, PromptEncoder, PromptEncoding, Prompts, RequestConditioning};
use crate::guidance::{Guidance, is_guided};
use crate::img2img::to_planes;
use crate::posterior::EncodedImage;
use crate::prompt::PromptTokens;
use crate::prompt_embedding::{EmbeddingSet, PromptEmbedding};
use crate::run_plan::scheduler_plan;
use crate::state::DenoiseState;
use crate::{PipelineError, StableDiffusion};

/// What all images of a request share, with a mask or without.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) cond: PreparedConditioning,
    pub(crate) uncond: Option<PreparedConditioning>,
    /// Of the result.
    pub(crate) size: Size,
    /// None in text to image.
    pub(crate) init: Option<Arc<RgbImage>>,
}

/// The scheduler of one image at its start.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) scheduler: Scheduler,
    pub(crate) kind: SchedulerKind,
    pub(crate) evaluations: u32,
}

impl StableDiffusion {
    /// The states of image to image, whatever the UNet's inputs.
    pub(crate) fn plain_states(
        &self,
        request: &Recipe,
        common: &Common,
        encoded: &EncodedImage,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        noise_sources(request)
            .map(|mut noise_source| {
                let plan = self.plan(request)?;
                let (kind, evaluations) = (plan.kind(), plan.evaluations());
                let init_latents = self.sample_latents(encoded, &mut noise_source);
                let started = Started {
                    scheduler: plan.begin(&init_latents, noise_source)?,
                    kind,
                    evaluations,
                };
                self.state(request, common, started)
            })
            .collect()
    }

    /// The states of text to image: noise with the deviation of the first level, as diffusers' `StableDiffusionPipeline`.
    pub(crate) fn noise_states(
        &self,
        request: &Recipe,
        common: &Common,
    ) -> Result<Vec<DenoiseState>, PipelineError> {
        let shape = self.latent_shape(common.size);
        noise_sources(request)
            .map(|mut noise_source| {
                let plan = self.plan(request)?;
                let (kind, evaluations) = (plan.kind(), plan.evaluations());
                let noise = noise_source.normal(shape);
                let started = Started {
                    scheduler: plan.begin_from(Start::Noise { noise: &noise }, noise_source)?,
                    kind,
                    evaluations,
                };
                self.state(request, common, started)
            })
            .collect()
    }

    /// Channels, height and width of the latents of an image of this size.
    pub(crate) fn latent_shape(&self, size: Size) -> [usize; 3] {
        let padded = size.padded_to(self.pixels_per_latent);
        let [h, w] = [padded.height, padded.width].map(|side| (side / self.pixels_per_latent) as usize);
        [self.vae.config().latent_channels, h, w]
    }

    /// The conditioning of a request without an image: the negative prompt is encoded only when guidance needs it.
    ///
    /// # Errors
    /// When a forward fails.
    pub fn encode_prompts(
        &self,
        request: &Recipe,
        embeddings: &[PromptEmbedding],
    ) -> Result<RequestConditioning, PipelineError> {
        let mut encoding = self.begin_prompts(request, embeddings, (usize::MAX, None))?;
        while encoding.advance(&self.encoders())? {}
        encoding.into_conditioning()
    }

    /// Cuts both prompts into chunks. One of more than `limit` tokens is refused before any is encoded, whether guidance
    /// needs it or not. SDXL is told the size of the image.
    pub(crate) fn begin_prompts(
        &self,
        request: &Recipe,
        embeddings: &[PromptEmbedding],
        (limit, size): (usize, Option<Size>),
    ) -> Result<PromptEncoding, PipelineError> {
        let embeddings = EmbeddingSet::new(embeddings);
        let prompts = self.prompts(request, &embeddings, limit)?;
        let size = size.filter(|_| self.unet.config().text_time.is_some());
        let sizes = size.map(|size| size_conditions(size.padded_to(self.pixels_per_latent)));
        PromptEncoding::new(&self.encoders(), &prompts, embeddings, sizes)
    }

    /// Its text encoders, in the order in which their states are joined.
    pub(crate) fn encoders(&self) -> Vec<PromptEncoder<'_>> {
        let first = PromptEncoder {
            tokenizer: &self.tokenizer,
            text: &self.text,
            is_raw: self.second.is_some(),
        };
        let second = self.second.as_ref().map(|second| PromptEncoder {
            tokenizer: &second.tokenizer,
            text: &second.text,
            is_raw: true,
        });
        std::iter::once(first).chain(second).collect()
    }

    /// The tokens of both prompts, for each text encoder.
    fn prompts(
        &self,
        request: &Recipe,
        embeddings: &EmbeddingSet,
        limit: usize,
    ) -> Result<Prompts, PipelineError> {
        let encoders = self.encoders();
        let tokens = |field: &'static str, prompt: &str| {
            let read = encoders.iter().map(|PromptEncoder { tokenizer, .. }| {
                let tokens = PromptTokens::read(field, prompt, tokenizer, embeddings.to_read())?;
                match tokens.count(tokenizer) {
                    found if found > limit => Err(PipelineError::PromptTooLong { field, found, limit }),
                    _ => Ok(tokens),
                }
            });
            read.collect::<Result<Vec<_>, _>>()
        };
        let positive = tokens("prompt", &request.prompt)?;
        let negative = tokens("negative_prompt", request.negative_text())?;
        let zeros_for_none = self.second.as_ref().is_some_and(|second| second.zeros_for_none);
        Ok(Prompts {
            positive,
            negative: match request.negative_prompt {
                _ if !self.is_guided(request) => Negative::Unneeded,
                None if zeros_for_none => Negative::Zeros,
                _ => Negative::Text(negative),
            },
            clip_skip: request.clip_skip,
        })
    }

    /// The VAE's mean and log-variance of an image, `(1, 8, h, w)`.
    ///
    /// # Errors
    /// When the forward fails.
    pub fn encode_image(&self, image: &RgbImage) -> Result<Tensor, PipelineError> {
        let x = to_planes(image, self.pixels_per_latent).into_tensor()?;
        Ok(self.vae().encode_moments(&x)?)
    }

    pub(crate) fn plan(&self, request: &Recipe) -> Result<SchedulerPlan, PipelineError> {
        scheduler_plan(request, request.strength, &self.scheduler_config)
    }

    /// A sample of an encoded image, scaled as the UNet knows it: `[4, h, w]`.
    pub(crate) fn sample_latents(&self, encoded: &EncodedImage, noise_source: &mut NoiseSource) -> Latents {
        self.to_unet_range(encoded.sample(noise_source))
    }

    /// One image before its first evaluation.
    pub(crate) fn state(
        &self,
        request: &Recipe,
        common: &Common,
        started: Started,
    ) -> Result<DenoiseState, PipelineError> {
        Ok(DenoiseState {
            scheduler: started.scheduler,
            kind: started.kind,
            evaluations: started.evaluations,
            done: 0,
            guidance: self.guidance(request)?,
            network: self.unet.row_network(),
            merges_tokens: request.merges_tokens(common.size),
            cond: common.cond.clone(),
            uncond: common.uncond.clone(),
            size: common.size,
            init: common.init.clone(),
            inpainting: None,
            broken: false,
        })
    }

    fn is_guided(&self, request: &Recipe) -> bool {
        is_guided(request, self.unet.config())
    }

    fn guidance(&self, request: &Recipe) -> Result<Guidance, PipelineError> {
        if let Some(dim) = self.unet.config().time_cond_proj_dim {
            let embedding = pentimento_models::guidance_embedding(request.guidance_scale - 1.0, dim)?;
            return Ok(Guidance::Embedded { embedding });
        }
        if self.is_guided(request) {
            return Ok(Guidance::ClassifierFree {
                scale: request.guidance_scale,
            });
        }
        Ok(Guidance::Off)
    }
}

/// What SDXL is told about an image that is not cropped: its size, no crop, its size again, height before width.
/// `StableDiffusionXLImg2ImgPipeline` takes the size of the latents, times 8.
fn size_conditions(size: Size) -> [f32; 6] {
    #[expect(clippy::cast_precision_loss, reason = "sides are below 2^24")]
    let [height, width] = [size.height, size.width].map(|side| side as f32);
    [height, width, 0.0, 0.0, height, width]
}

/// The noise source of each image of a request: image k draws from seed + k.
pub(crate) fn noise_sources(request: &Recipe) -> impl Iterator<Item = NoiseSource> {
    let seed = request.seed;
    (0..u64::from(request.image_count)).map(move |index| NoiseSource::new(seed.wrapping_add(index)))
}
