//! Constructors for callers that choose no device, such as `pentimento bench`: everything on the CPU.

use pentimento_models::Device;

use crate::{PipelineError, ResolvedModels, StableDiffusion, seeded};

impl StableDiffusion {
    /// As [`StableDiffusion::load`], on the CPU.
    ///
    /// # Errors
    /// As [`StableDiffusion::load`].
    pub fn load_on_cpu(models: &ResolvedModels) -> Result<Self, PipelineError> {
        Self::load(models, &Device::Cpu)
    }

    /// As [`seeded::stable_diffusion`], on the CPU.
    ///
    /// # Errors
    /// As [`seeded::stable_diffusion`].
    pub fn seeded_on_cpu(shape: seeded::Shape, seed: u64) -> Result<Self, PipelineError> {
        seeded::stable_diffusion(shape, seed, &Device::Cpu)
    }
}
