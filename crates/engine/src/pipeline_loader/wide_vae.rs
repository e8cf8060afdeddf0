//! Autoencoders that leave the range of 16 bits: from the first time on they compute in 32.

use pentimento_pipeline::{Component, ComponentKey, ComponentRole, ModelSource, StableDiffusion};
use pentimento_types::describe_chain;

use super::{Fault, Memory, PipelineLoader};
use crate::ResolvedModels;

impl Memory {
    /// The components of a model, of which the autoencoder is the one in 32 bits where the other was not enough before.
    pub(super) fn in_their_precision(&self, keys: Vec<ComponentKey>) -> Vec<ComponentKey> {
        let replaced = |key: ComponentKey| {
            if self.narrow_vaes.contains(&key) {
                key.in_f32()
            } else {
                key
            }
        };
        keys.into_iter().map(replaced).collect()
    }
}

impl PipelineLoader {
    /// Gives a model whose autoencoder has left the range of 16 bits the same one in 32, and remembers that of its files. Says whether
    /// passes that begin now are in 32 bits. Reads the file once, while the device waits: it is a tenth of a second from the page
    /// cache, and happens once for a model.
    pub(crate) fn widen_vae(&self, model: &StableDiffusion, models: &ResolvedModels) -> bool {
        if !model.has_narrow_vae() {
            // Another job was first.
            self.0.metrics.vae_overflows.inc();
            return true;
        }
        match self.read_wide_vae(models) {
            Ok(Some(vae)) => {
                tracing::warn!(
                    model = models.checkpoint.name,
                    vae = models.vae.as_ref().map(|vae| vae.name.as_str()),
                    "its autoencoder leaves the range of f16, and computes in f32 from now on; the picture is computed again"
                );
                model.widen_vae(&vae);
                self.0.metrics.vae_overflows.inc();
                true
            }
            Ok(None) => false,
            Err(fault) => {
                let error = match &fault {
                    Fault::Failed(error) => describe_chain(&**error),
                    Fault::NoRoom { needed, .. } => format!("there is no room for {needed} bytes"),
                };
                tracing::error!(
                    model = models.checkpoint.name,
                    error,
                    "its autoencoder leaves the range of f16, and cannot be read for f32"
                );
                false
            }
        }
    }

    fn read_wide_vae(&self, models: &ResolvedModels) -> Result<Option<Component>, Fault> {
        let source = ModelSource::open(models, &self.0.device)?;
        let keys = source.keys()?;
        let Some(narrow) = keys.into_iter().find(|key| key.role() == ComponentRole::Vae) else {
            return Ok(None);
        };
        let wide = narrow.in_f32();
        if wide == narrow {
            return Ok(None);
        }
        let vae = self.find_or_read_one(&source, &wide, std::slice::from_ref(&wide))?;
        self.memory().narrow_vaes.insert(narrow);
        Ok(Some(vae))
    }
}
