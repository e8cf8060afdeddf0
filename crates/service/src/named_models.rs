//! The entries of the catalogue that a recipe's names stand for, whether their files are here or not. A preset is its
//! checkpoint with what stands in its entry.

use std::sync::Arc;

use pentimento_catalog::{Catalog, CatalogError, ModelEntry, ModelKind, Preset};
use pentimento_engine::{PromptEmbedding, ResolvedModels, written_in};
use pentimento_types::{ModelId, Recipe};

use crate::{ModelRole, ServiceError};

/// Everything that a recipe names, and the embeddings whose words its prompts have.
#[derive(Clone, Debug)]
pub struct NamedModels {
    checkpoint: Arc<ModelEntry>,
    vae: Option<Arc<ModelEntry>>,
    loras: Vec<(Arc<ModelEntry>, f64)>,
    embeddings: Vec<Arc<ModelEntry>>,
}

impl NamedModels {
    /// Finds them. What a preset says of LoRAs and embeddings comes before the recipe's own; its VAE counts where the recipe
    /// names none. LoRAs of strength 0 are left out, once their names are known to be right.
    ///
    /// # Errors
    /// [`ServiceError::ModelNotFound`] for the first name that is wrong.
    pub fn of(catalog: &Catalog, recipe: &Recipe) -> Result<Self, ServiceError> {
        let entry = find(catalog, ModelRole::Checkpoint, &recipe.model)?;
        let preset = entry.preset.as_ref();
        let vae_of_preset = || Some(ModelId::new(preset?.vae.as_deref()?));
        let vae = recipe.vae.clone().or_else(vae_of_preset);
        let vae = vae.map(|vae| find(catalog, ModelRole::Vae, &vae)).transpose()?;
        let of_preset = preset.iter().flat_map(|preset| &preset.loras);
        let of_preset = of_preset.map(|lora| (ModelId::new(&lora.name), lora.strength));
        let of_recipe = recipe.loras.iter();
        let of_recipe = of_recipe.map(|lora| (lora.model.clone(), lora.strength));
        let mut loras = Vec::new();
        for (name, strength) in of_preset.chain(of_recipe) {
            let lora = find(catalog, ModelRole::Lora, &name)?;
            // At strength 0 it changes nothing, and its files are not needed.
            if strength != 0.0 {
                loras.push((lora, strength));
            }
        }
        let of_preset = preset.iter().flat_map(|preset| &preset.embeddings);
        let of_recipe = recipe.embeddings.iter().map(|embedding| embedding.model.clone());
        let mut embeddings = Vec::new();
        for name in of_preset.map(|name| ModelId::new(name)).chain(of_recipe) {
            embeddings.push(find(catalog, ModelRole::Embedding, &name)?);
        }
        let checkpoint = base_of(catalog, &entry).unwrap_or(entry);
        let prompts = [recipe.prompt.as_str(), recipe.negative_text()];
        embeddings.extend(written_in(catalog.entries(), &checkpoint, prompts));
        let mut each_once: Vec<Arc<ModelEntry>> = Vec::new();
        for embedding in embeddings {
            // One that is named is mostly written as well.
            if !each_once.iter().any(|known| Arc::ptr_eq(known, &embedding)) {
                each_once.push(embedding);
            }
        }
        Ok(Self {
            checkpoint,
            vae,
            loras,
            embeddings: each_once,
        })
    }

    /// The checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Arc<ModelEntry> {
        &self.checkpoint
    }

    /// All of them, each with its part in the request, the checkpoint first.
    #[must_use]
    pub fn entries(&self) -> Vec<(ModelRole, Arc<ModelEntry>)> {
        let vae = self.vae.iter().map(|entry| (ModelRole::Vae, entry));
        let loras = self.loras.iter().map(|(entry, _)| (ModelRole::Lora, entry));
        let embeddings = self.embeddings.iter().map(|entry| (ModelRole::Embedding, entry));
        let beside = vae.chain(loras).chain(embeddings);
        std::iter::once((ModelRole::Checkpoint, &self.checkpoint))
            .chain(beside)
            .map(|(role, entry)| (role, Arc::clone(entry)))
            .collect()
    }

    /// The same models by the entries that say where their files are on this machine: as many as [`Self::entries`] gives, in
    /// the same order. Others than that leave the rest as it is.
    #[must_use]
    pub fn located(mut self, entries: Vec<Arc<ModelEntry>>) -> Self {
        let loras = self.loras.iter_mut().map(|(entry, _)| entry);
        let places = std::iter::once(&mut self.checkpoint)
            .chain(&mut self.vae)
            .chain(loras)
            .chain(&mut self.embeddings);
        for (place, entry) in places.zip(entries) {
            *place = entry;
        }
        self
    }

    /// The LoRAs, in the order in which they are applied.
    pub fn loras(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.loras.iter().map(|(entry, _)| entry)
    }

    /// The embeddings, still to be read.
    #[must_use]
    pub fn embeddings(&self) -> &[Arc<ModelEntry>] {
        &self.embeddings
    }

    /// What the engine is given, with the embeddings read.
    #[must_use]
    pub fn resolved(self, embeddings: Vec<PromptEmbedding>) -> ResolvedModels {
        ResolvedModels {
            vae: self.vae,
            loras: self.loras,
            embeddings,
            ..ResolvedModels::checkpoint(self.checkpoint)
        }
    }
}

/// The entry that a name means in a role.
pub(crate) fn find(
    catalog: &Catalog,
    role: ModelRole,
    name: &ModelId,
) -> Result<Arc<ModelEntry>, ServiceError> {
    let kind = match role {
        ModelRole::Checkpoint => ModelKind::Checkpoint,
        ModelRole::Vae => ModelKind::Vae,
        ModelRole::Lora => ModelKind::Lora,
        ModelRole::Embedding => ModelKind::Embedding,
    };
    match catalog.resolve(name, kind) {
        Ok(entry) => Ok(entry),
        Err(CatalogError::NotFound {
            kind: _,
            name,
            nearest,
        }) => Err(ServiceError::ModelNotFound { role, name, nearest }),
        Err(other) => Err(ServiceError::internal(other)),
    }
}

/// The checkpoint of a preset that runs as its checkpoint does, so that jobs of both share their forwards.
pub(crate) fn base_of(catalog: &Catalog, entry: &ModelEntry) -> Option<Arc<ModelEntry>> {
    let Preset { checkpoint, .. } = entry.preset.as_ref()?;
    let name = ModelId::new(checkpoint.as_deref()?);
    let base = find(catalog, ModelRole::Checkpoint, &name).ok()?;
    let runs_alike =
        entry.scheduler == base.scheduler && entry.prediction == base.prediction && entry.role == base.role;
    runs_alike.then_some(base)
}
