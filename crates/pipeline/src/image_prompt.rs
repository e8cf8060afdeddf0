//! A picture beside the prompt: from its pixels to the tokens that the UNet's layers attend to, in slices.
//!
//! As diffusers' `encode_image` and `prepare_ip_adapter_image_embeds`. A projection takes the picture's embedding, and a zero
//! embedding for the row without the prompt; a resampler takes the states before the encoder's last layer, and those of a
//! picture of zeros.

use candle_core::{DType, Device, Tensor};
use pentimento_models::{ImageTokens, VisionOutput, VisionPass};
use pentimento_types::{Recipe, RgbImage};

use crate::clip_pixels::clip_pixels;
use crate::stable_diffusion::ImagePrompter;
use crate::{PipelineError, StableDiffusion};

/// The picture of one request on its way to tokens.
#[derive(Debug)]
pub(crate) struct ImagePromptEncoding {
    picture: RgbImage,
    scale: f32,
    /// The picture, or the one of zeros, on its way through the encoder.
    pass: Option<VisionPass>,
    /// Of the picture.
    tokens: Option<Tensor>,
    /// Of the row without the prompt.
    unseen: Option<Tensor>,
}

/// What the rows of a request are shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) cond: ImageTokens,
    pub(crate) uncond: Option<ImageTokens>,
}

impl StableDiffusion {
    /// Begins with the picture, where the model has an adapter for it.
    ///
    /// # Errors
    /// When there is an adapter without a picture or a picture without an adapter.
    pub(crate) fn begin_image_prompt(
        &self,
        request: &Recipe,
        picture: Option<RgbImage>,
    ) -> Result<Option<ImagePromptEncoding>, PipelineError> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "PyTorch multiplies f32 tensors by it"
        )]
        match (&self.image_prompter, &request.ip_adapter, picture) {
            (None, None, None) => Ok(None),
            (Some(_), Some(asked), Some(picture)) => Ok(Some(ImagePromptEncoding {
                picture,
                scale: asked.scale as f32,
                pass: None,
                tokens: None,
                unseen: None,
            })),
            (prompter, _, picture) => Err(PipelineError::Mismatch {
                name: self.name.clone(),
                detail: format!(
                    "an IP-Adapter and its image go together; there is {} and {}",
                    prompter.as_ref().map_or("no IP-Adapter", |_| "an IP-Adapter"),
                    picture.map_or("no image", |_| "an image")
                ),
            }),
        }
    }

    /// Does the next slice. The result after the last one; `is_guided` says whether there is a row without the prompt.
    pub(crate) fn advance_image_prompt(
        &self,
        encoding: &mut ImagePromptEncoding,
        is_guided: bool,
    ) -> Result<Option<Shown>, PipelineError> {
        let Some(prompter) = &self.image_prompter else {
            return Err(PipelineError::Spent);
        };
        let scale = encoding.scale;
        let shown = |tokens: Tensor| ImageTokens { tokens, scale };
        if scale == 0.0 {
            // Nothing is seen of it, so nothing is computed; the rows have the shape of others all the same.
            let config = prompter.adapter.config();
            let nothing = Tensor::zeros((1, config.tokens, config.width), DType::F32, &Device::Cpu)?;
            return Ok(Some(Shown {
                cond: shown(nothing.clone()),
                uncond: is_guided.then(|| shown(nothing)),
            }));
        }
        if encoding.tokens.is_none() {
            encoding.tokens = prompter.advance(&mut encoding.pass, Some(&encoding.picture))?;
            return Ok(None);
        }
        if is_guided && encoding.unseen.is_none() {
            if let Some(known) = prompter.unseen.get() {
                encoding.unseen = Some(known.clone());
                return Ok(None);
            }
            encoding.unseen = match prompter.adapter.takes() {
                VisionOutput::Embedding => {
                    let width = prompter.encoder.config().projection_dim;
                    let zeros = Tensor::zeros((1, width), DType::F32, &Device::Cpu)?;
                    Some(prompter.adapter.tokens(&zeros)?)
                }
                VisionOutput::Penultimate => prompter.advance(&mut encoding.pass, None)?,
            };
            if let Some(tokens) = &encoding.unseen {
                prompter.unseen.get_or_init(|| tokens.clone());
            }
            return Ok(None);
        }
        let tokens = encoding.tokens.take().ok_or(PipelineError::Spent)?;
        Ok(Some(Shown {
            cond: shown(tokens),
            uncond: encoding.unseen.take().map(shown),
        }))
    }

    /// The tokens of a picture and, where `is_guided`, those of the row without the prompt: `(1, N, D)` each.
    ///
    /// # Errors
    /// When the model has no adapter, or a forward fails.
    pub fn image_tokens(
        &self,
        picture: &RgbImage,
        is_guided: bool,
    ) -> Result<(Tensor, Option<Tensor>), PipelineError> {
        let mut encoding = ImagePromptEncoding {
            picture: picture.clone(),
            scale: 1.0,
            pass: None,
            tokens: None,
            unseen: None,
        };
        loop {
            if let Some(Shown { cond, uncond }) = self.advance_image_prompt(&mut encoding, is_guided)? {
                return Ok((cond.tokens, uncond.map(|uncond| uncond.tokens)));
            }
        }
    }

    /// Tokens of a picture that each row has beside its text.
    pub(crate) fn image_token_count(&self) -> usize {
        let prompter = self.image_prompter.as_ref();
        prompter.map_or(0, |prompter| prompter.adapter.config().tokens)
    }
}

impl ImagePrompter {
    /// Some layers of the encoder; the tokens after the last ones. No picture is one of zeros.
    fn advance(
        &self,
        pass: &mut Option<VisionPass>,
        picture: Option<&RgbImage>,
    ) -> Result<Option<Tensor>, PipelineError> {
        let Some(under_way) = pass else {
            let side = self.encoder.config().image_size;
            let pixels = match picture {
                Some(picture) => {
                    let side = u32::try_from(side).map_err(candle_core::Error::wrap)?;
                    clip_pixels(picture, side)?
                }
                None => Tensor::zeros((1, 3, side, side), DType::F32, &Device::Cpu)?,
            };
            *pass = Some(self.encoder.begin(&pixels, self.adapter.takes())?);
            return Ok(None);
        };
        let Some(seen) = self.encoder.advance(under_way)? else {
            return Ok(None);
        };
        *pass = None;
        Ok(Some(self.adapter.tokens(&seen)?))
    }
}
