//! The components of one checkpoint, put together. Shared by all its images and never changed by them.

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use pentimento_models::{ClipTokenizer, ClipVision, IpAdapter, Precision, UNet, Vae};
use pentimento_schedulers::SchedulerConfig;

use crate::component::Component;
use crate::text_encoder::TextEncoder;

/// Text encoder, UNet, VAE, tokenizer and scheduler configuration of one checkpoint on one device. Cheap to make and to
/// clone: the components are shared.
#[derive(Clone, Debug)]
pub struct StableDiffusion {
    pub(crate) name: String,
    pub(crate) tokenizer: Arc<ClipTokenizer>,
    pub(crate) text: Arc<TextEncoder>,
    /// Of SDXL only.
    pub(crate) second: Option<SecondEncoder>,
    pub(crate) unet: Arc<UNet>,
    pub(crate) vae: Arc<Vae>,
    /// The same in f32, once `vae` has left the range of f16.
    pub(crate) wide_vae: Arc<OnceLock<Arc<Vae>>>,
    /// Of models with an IP-Adapter only.
    pub(crate) image_prompter: Option<ImagePrompter>,
    pub(crate) scheduler_config: SchedulerConfig,
    /// Image pixels per latent pixel along one side; 8 for every Stable Diffusion VAE.
    pub(crate) pixels_per_latent: u32,
}

/// The second text encoder of SDXL, with the tokenizer that feeds it.
#[derive(Clone, Debug)]
pub(crate) struct SecondEncoder {
    pub(crate) tokenizer: Arc<ClipTokenizer>,
    pub(crate) text: Arc<TextEncoder>,
    /// What stands for a negative prompt that is not there: zeros, or the states of an empty one.
    pub(crate) zeros_for_none: bool,
}

/// An IP-Adapter with the encoder that sees pictures for it.
#[derive(Clone, Debug)]
pub(crate) struct ImagePrompter {
    pub(crate) adapter: Arc<IpAdapter>,
    pub(crate) encoder: Arc<ClipVision>,
    /// The tokens of the row without the prompt, which are the same for all pictures: a resampler's take as long as a
    /// picture's own.
    pub(crate) unseen: Arc<OnceLock<Tensor>>,
}

impl ImagePrompter {
    pub(crate) fn new(adapter: Arc<IpAdapter>, encoder: Arc<ClipVision>) -> Self {
        Self {
            adapter,
            encoder,
            unseen: Arc::default(),
        }
    }
}

impl StableDiffusion {
    /// The checkpoint's name in the catalogue.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numbers in which its UNet computes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.unet.device().precision()
    }

    /// The autoencoder that passes begin with from now on; one that is under way goes on with its own.
    pub(crate) fn vae(&self) -> &Arc<Vae> {
        self.wide_vae.get().unwrap_or(&self.vae)
    }

    /// Whether passes of the autoencoder that begin now could leave the range of their numbers: those of 16 bits.
    #[must_use]
    pub fn has_narrow_vae(&self) -> bool {
        self.vae().precision() == Precision::F16
    }

    /// Computes with this autoencoder from now on, which is the model's own in f32.
    pub fn widen_vae(&self, vae: &Component) {
        if let Component::Vae(vae) = vae {
            // Whoever was first has set an equal one.
            let _ = self.wide_vae.set(Arc::clone(vae));
        }
    }
}
