//! What the names in a recipe stand for.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, SchedulerSettings};

use crate::PromptEmbedding;

/// An IP-Adapter, and the image encoder that its entry names; None is the one beside its file.
#[derive(Clone, Debug)]
pub struct IpAdapterEntries {
    /// The adapter.
    pub adapter: Arc<ModelEntry>,
    /// Its encoder.
    pub image_encoder: Option<Arc<ModelEntry>>,
}

/// The catalogue entries of the models that a recipe names.
#[derive(Clone, Debug)]
pub struct ResolvedModels {
    /// The checkpoint.
    pub checkpoint: Arc<ModelEntry>,
    /// Another VAE than the checkpoint's own.
    pub vae: Option<Arc<ModelEntry>>,
    /// LoRAs with their strengths, in the recipe's order.
    pub loras: Vec<(Arc<ModelEntry>, f64)>,
    /// Where the run is that of a latent consistency model, and the catalogue does not say that the checkpoint is one: the
    /// LCM-LoRAs that there are. The one for the checkpoint's base is applied unless the checkpoint turns out to be one.
    pub lcm_loras: Option<Vec<Arc<ModelEntry>>>,
    /// Textual inversions that are named or whose words the prompts have, read already. They change no weights.
    pub embeddings: Vec<PromptEmbedding>,
    /// What shows the model an image beside the prompt.
    pub ip_adapter: Option<IpAdapterEntries>,
}

impl ResolvedModels {
    /// A checkpoint with nothing beside it.
    #[must_use]
    pub const fn checkpoint(checkpoint: Arc<ModelEntry>) -> Self {
        Self {
            checkpoint,
            vae: None,
            loras: Vec::new(),
            lcm_loras: None,
            embeddings: Vec::new(),
            ip_adapter: None,
        }
    }

    /// How they want to be run: what the checkpoint's entry says, and where it is silent, that of the first LoRA that says
    /// something. An LCM-LoRA that the server adds by itself says nothing, since its route knows how to run it.
    pub(crate) fn scheduler_settings(&self) -> SchedulerSettings {
        let loras = self.loras.iter().map(|(entry, _)| &entry.scheduler);
        loras.fold(self.checkpoint.scheduler.clone(), SchedulerSettings::or)
    }

    /// The entries whose files a load reads.
    pub fn entries(&self) -> impl Iterator<Item = &ModelEntry> {
        let loras = self.loras.iter().map(|(entry, _)| entry);
        let lcm = self.lcm_loras.iter().flatten();
        let ip_adapter = self.ip_adapter.iter();
        let ip_adapter = ip_adapter.flat_map(|it| std::iter::once(&it.adapter).chain(&it.image_encoder));
        let entries = std::iter::once(&self.checkpoint)
            .chain(&self.vae)
            .chain(loras)
            .chain(lcm)
            .chain(ip_adapter);
        entries.map(|entry| &**entry)
    }
}
