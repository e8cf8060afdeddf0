//! The components of one checkpoint, put together. Shared by all its images and never changed by them.

use std::sync::Arc;

use pentimento_models::{ClipText, ClipTokenizer, UNet, Vae};
use pentimento_schedulers::SchedulerConfig;

/// Text encoder, UNet, VAE, tokenizer and scheduler configuration of one checkpoint on one device. Cheap to make and to
/// clone: the components are shared.
#[derive(Clone, Debug)]
pub struct StableDiffusion {
    pub(crate) name: String,
    pub(crate) tokenizer: Arc<ClipTokenizer>,
    pub(crate) text: Arc<ClipText>,
    /// Of SDXL only.
    pub(crate) second: Option<SecondEncoder>,
    pub(crate) unet: Arc<UNet>,
    pub(crate) vae: Arc<Vae>,
    pub(crate) scheduler_config: SchedulerConfig,
    /// Image pixels per latent pixel along one side; 8 for every Stable Diffusion VAE.
    pub(crate) pixels_per_latent: u32,
}

/// The second text encoder of SDXL, with the tokenizer that feeds it.
#[derive(Clone, Debug)]
pub(crate) struct SecondEncoder {
    pub(crate) tokenizer: Arc<ClipTokenizer>,
    pub(crate) text: Arc<ClipText>,
    /// What stands for a negative prompt that is not there: zeros, or the states of an empty one.
    pub(crate) zeros_for_none: bool,
}

impl StableDiffusion {
    /// The checkpoint's name in the catalogue.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}
