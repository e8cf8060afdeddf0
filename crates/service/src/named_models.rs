//! The entries of the catalogue that a recipe's names stand for, whether their files are here or not. A preset is its
//! checkpoint with what stands in its entry.

use std::sync::Arc;

use pentimento_catalog::{Catalog, CatalogError, ModelEntry, ModelKind, Preset};
use pentimento_engine::{IpAdapterEntries, PromptEmbedding, ResolvedModels, written_in};
use pentimento_jobs::ModelsBeside;
use pentimento_types::{EmbeddingRef, IpAdapterRef, LoraRef, ModelId, Recipe, StrengthRule};

use crate::{ModelRole, ServiceError};

/// Everything that a recipe names, and the embeddings whose words its prompts have.
#[derive(Clone, Debug)]
pub struct NamedModels {
    checkpoint: Arc<ModelEntry>,
    vae: Option<Arc<ModelEntry>>,
    loras: Vec<(Arc<ModelEntry>, f64)>,
    embeddings: Vec<Arc<ModelEntry>>,
    /// Those whose words the prompts have, and which nobody has named.
    written: Vec<Arc<ModelEntry>>,
    ip_adapter: Option<Arc<ModelEntry>>,
    /// As the adapter's entry names it.
    image_encoder: Option<Arc<ModelEntry>>,
}

impl NamedModels {
    /// Finds them. What a preset says of LoRAs and embeddings comes before the recipe's own; its VAE counts where the recipe
    /// names none. LoRAs of strength 0 are left out, once their names are known to be right.
    ///
    /// # Errors
    /// [`ServiceError::ModelNotFound`] for the first name that is wrong, and [`ServiceError::ModelTwice`] for a LoRA that would
    /// be applied twice.
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
        let mut loras: Vec<(Arc<ModelEntry>, f64)> = Vec::new();
        for (name, strength) in of_preset.chain(of_recipe) {
            let lora = find(catalog, ModelRole::Lora, &name)?;
            // At strength 0 it changes nothing, and its files are not needed.
            if strength == 0.0 {
                continue;
            }
            if loras.iter().any(|(known, _)| Arc::ptr_eq(known, &lora)) {
                return Err(ServiceError::ModelTwice {
                    role: ModelRole::Lora,
                    name: lora.name.clone(),
                });
            }
            loras.push((lora, strength));
        }
        let of_preset = preset.iter().flat_map(|preset| &preset.embeddings);
        let of_recipe = recipe.embeddings.iter().map(|embedding| embedding.model.clone());
        let mut embeddings: Vec<Arc<ModelEntry>> = Vec::new();
        for name in of_preset.map(ModelId::new).chain(of_recipe) {
            let embedding = find(catalog, ModelRole::Embedding, &name)?;
            if !embeddings.iter().any(|known| Arc::ptr_eq(known, &embedding)) {
                embeddings.push(embedding);
            }
        }
        let ip_adapter = recipe.ip_adapter.as_ref();
        let ip_adapter = ip_adapter.map(|asked| find(catalog, ModelRole::IpAdapter, &asked.model));
        let ip_adapter = ip_adapter.transpose()?;
        let image_encoder = ip_adapter
            .as_ref()
            .and_then(|entry| entry.image_encoder.as_deref());
        let image_encoder =
            image_encoder.map(|name| find(catalog, ModelRole::ImageEncoder, &ModelId::new(name)));
        let image_encoder = image_encoder.transpose()?;
        let checkpoint = base_of(catalog, &entry).unwrap_or(entry);
        if let Some(adapter) = &ip_adapter
            && let Some((of_adapter, of_checkpoint)) = adapter.base.zip(checkpoint.base)
            && of_adapter != of_checkpoint
        {
            // Before gigabytes are fetched for it; where an entry says nothing, the files are looked at.
            return Err(ServiceError::ModelUnfit {
                role: ModelRole::IpAdapter,
                name: adapter.name.clone(),
                checkpoint: checkpoint.name.clone(),
                reason: format!("it is for {of_adapter}, and the checkpoint is of {of_checkpoint}"),
            });
        }
        let prompts = [recipe.prompt.as_str(), recipe.negative_text()];
        let mut written = written_in(catalog.entries(), &checkpoint, prompts);
        // One that is named is mostly written as well.
        written.retain(|embedding| !embeddings.iter().any(|known| Arc::ptr_eq(known, embedding)));
        Ok(Self {
            checkpoint,
            vae,
            loras,
            embeddings,
            written,
            ip_adapter,
            image_encoder,
        })
    }

    /// Those that a machine needs the files of to run a job: all but embeddings that its prompts only write.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn without_prompts(
        catalog: &Catalog,
        checkpoint: &ModelId,
        beside: &ModelsBeside,
    ) -> Result<Self, ServiceError> {
        let ModelsBeside {
            vae,
            loras,
            embeddings,
            ip_adapter,
        } = beside.clone();
        let lora = |model| LoraRef { model, strength: 1.0 };
        let adapter = |model| IpAdapterRef { model, scale: 1.0 };
        let recipe = Recipe {
            vae,
            loras: loras.into_iter().map(lora).collect(),
            embeddings: embeddings
                .into_iter()
                .map(|model| EmbeddingRef { model })
                .collect(),
            ip_adapter: ip_adapter.map(adapter),
            ..Recipe::of_model(checkpoint.clone())
        };
        Self::of(catalog, &recipe)
    }

    /// The checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Arc<ModelEntry> {
        &self.checkpoint
    }

    /// All that are named, each with its part in the request, the checkpoint first.
    #[must_use]
    pub fn entries(&self) -> Vec<(ModelRole, Arc<ModelEntry>)> {
        let vae = self.vae.iter().map(|entry| (ModelRole::Vae, entry));
        let loras = self.loras.iter().map(|(entry, _)| (ModelRole::Lora, entry));
        let embeddings = self.embeddings.iter().map(|entry| (ModelRole::Embedding, entry));
        let adapter = self.ip_adapter.iter().map(|entry| (ModelRole::IpAdapter, entry));
        let encoder = self.image_encoder.iter();
        let encoder = encoder.map(|entry| (ModelRole::ImageEncoder, entry));
        let beside = vae.chain(loras).chain(embeddings).chain(adapter).chain(encoder);
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
            .chain(&mut self.embeddings)
            .chain(&mut self.ip_adapter)
            .chain(&mut self.image_encoder);
        for (place, entry) in places.zip(entries) {
            *place = entry;
        }
        self
    }

    /// The LoRAs, in the order in which they are applied.
    pub fn loras(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.loras.iter().map(|(entry, _)| entry)
    }

    /// The embeddings that are named, still to be read.
    #[must_use]
    pub fn embeddings(&self) -> &[Arc<ModelEntry>] {
        &self.embeddings
    }

    /// The embeddings that are not named and whose words the prompts have. A word never refuses a request and fetches nothing:
    /// where such an embedding cannot be used, it is text.
    #[must_use]
    pub fn written(&self) -> &[Arc<ModelEntry>] {
        &self.written
    }

    /// Whether the run may need an LCM-LoRA that nobody has named: the route is the one for latent consistency models, and
    /// neither the checkpoint nor a LoRA is said to be distilled.
    pub(crate) fn may_need_lcm_lora(&self, recipe: &Recipe) -> bool {
        let is_lcm = |entry: &ModelEntry| entry.role.as_deref() == Some(ModelEntry::ROLE_LCM);
        // A LoRA with a scheduler or timesteps of its own is another distillation.
        let is_distillation = |entry: &ModelEntry| {
            is_lcm(entry) || entry.scheduler.kind.is_some() || entry.scheduler.timesteps.is_some()
        };
        recipe.scheduler.strength_rule == StrengthRule::LowerStart
            && !is_lcm(&self.checkpoint)
            && !self.loras().any(|lora| is_distillation(lora))
    }

    /// What the engine is given, with the embeddings read.
    #[must_use]
    pub fn resolved(self, embeddings: Vec<PromptEmbedding>) -> ResolvedModels {
        ResolvedModels {
            vae: self.vae,
            loras: self.loras,
            embeddings,
            ip_adapter: self.ip_adapter.map(|adapter| IpAdapterEntries {
                adapter,
                image_encoder: self.image_encoder,
            }),
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
        ModelRole::IpAdapter => ModelKind::IpAdapter,
        ModelRole::ImageEncoder => ModelKind::ImageEncoder,
        ModelRole::SafetyChecker => ModelKind::SafetyChecker,
        ModelRole::PromptEnhancer => ModelKind::PromptEnhancer,
        ModelRole::Upscaler => ModelKind::Upscaler,
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
