//! What the names in a recipe stand for: entries of the catalogue with their files on this machine. A preset is its
//! checkpoint with what stands in its entry.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind, Preset};
use pentimento_engine::ResolvedModels;
use pentimento_types::{ModelId, Recipe, StrengthRule};

use crate::inner::Inner;
use crate::{ModelRole, ServiceError};

/// The entries of a recipe's names.
struct Named {
    checkpoint: Arc<ModelEntry>,
    vae: Option<Arc<ModelEntry>>,
    loras: Vec<(Arc<ModelEntry>, f64)>,
    embeddings: Vec<Arc<ModelEntry>>,
}

impl Inner {
    /// What the names of a recipe stand for.
    pub(crate) async fn resolve_models(&self, recipe: &Recipe) -> Result<ResolvedModels, ServiceError> {
        // Unknown names first: they are wrong whatever is here.
        let mut named = self.named(recipe)?;
        named.add_embeddings(self.written_embeddings(recipe, &named.checkpoint).await?);
        let checkpoint = std::iter::once((ModelRole::Checkpoint, &named.checkpoint));
        let wanted = checkpoint.chain(named.beside_checkpoint());
        let wanted = wanted.map(|(role, entry)| (role, Arc::clone(entry))).collect();
        let mut usable = self.usable(wanted).await?.into_iter();
        // As many as were asked for, in the same order.
        let mut next = || {
            usable
                .next()
                .ok_or_else(|| ServiceError::internal("fewer models than names"))
        };
        let checkpoint = next()?;
        Ok(ResolvedModels {
            vae: named.vae.map(|_| next()).transpose()?,
            loras: named
                .loras
                .iter()
                .map(|(_, strength)| Ok((next()?, *strength)))
                .collect::<Result<_, ServiceError>>()?,
            embeddings: {
                let files = named.embeddings.iter().map(|_| next());
                let files = files.collect::<Result<_, _>>()?;
                self.read_embeddings(files, &checkpoint).await?
            },
            checkpoint,
            lcm_loras: self.lcm_loras(recipe, &named.checkpoint).await?,
        })
    }

    /// The LCM-LoRAs for the checkpoint's base, where one of them may be needed: the route is the one for latent consistency
    /// models, and the catalogue does not say that the checkpoint is one.
    async fn lcm_loras(
        &self,
        recipe: &Recipe,
        checkpoint: &ModelEntry,
    ) -> Result<Option<Vec<Arc<ModelEntry>>>, ServiceError> {
        let is_lcm = |entry: &ModelEntry| entry.role.as_deref() == Some(ModelEntry::ROLE_LCM);
        if recipe.scheduler.strength_rule != StrengthRule::LowerStart || is_lcm(checkpoint) {
            return Ok(None);
        }
        let may_fit = |entry: &ModelEntry| {
            let both = entry.base.zip(checkpoint.base);
            entry.kind == ModelKind::Lora && is_lcm(entry) && both.is_none_or(|(its, base)| its == base)
        };
        let mut found = Vec::new();
        for entry in self.catalog.entries().iter().filter(|entry| may_fit(entry)) {
            match self.usable(vec![(ModelRole::Lora, Arc::clone(entry))]).await {
                Ok(usable) => found.extend(usable),
                Err(error @ ServiceError::ModelOnItsWay { .. }) => return Err(error),
                Err(error) => tracing::debug!(lora = %entry.name, %error, "an LCM-LoRA cannot be used"),
            }
        }
        Ok(Some(found))
    }

    fn named(&self, recipe: &Recipe) -> Result<Named, ServiceError> {
        let entry = self.find(ModelRole::Checkpoint, &recipe.model)?;
        let preset = entry.preset.as_ref();
        let vae = recipe
            .vae
            .clone()
            .or_else(|| Some(ModelId::new(preset?.vae.as_deref()?)));
        let of_preset = preset.map_or(&[][..], |preset| &preset.loras[..]);
        let of_preset = of_preset
            .iter()
            .map(|lora| (ModelId::new(&lora.name), lora.strength));
        let of_recipe = recipe
            .loras
            .iter()
            .map(|lora| (lora.model.clone(), lora.strength));
        // At strength 0 a LoRA changes nothing, and its files are not needed; its name is still to be right.
        let mut loras: Vec<(Arc<ModelEntry>, f64)> = of_preset
            .chain(of_recipe)
            .map(|(name, strength)| Ok((self.find(ModelRole::Lora, &name)?, strength)))
            .collect::<Result<_, ServiceError>>()?;
        loras.retain(|(_, strength)| *strength != 0.0);
        let of_preset = preset.map_or(&[][..], |preset| &preset.embeddings[..]);
        let names = of_preset.iter().map(|name| ModelId::new(name));
        let names = names.chain(recipe.embeddings.iter().map(|embedding| embedding.model.clone()));
        let embeddings = names.map(|name| self.find(ModelRole::Embedding, &name));
        let embeddings = embeddings.collect::<Result<Vec<_>, _>>()?;
        let mut named = Named {
            vae: vae.map(|vae| self.find(ModelRole::Vae, &vae)).transpose()?,
            loras,
            embeddings: Vec::new(),
            checkpoint: self.base_of(&entry).unwrap_or(entry),
        };
        named.add_embeddings(embeddings);
        Ok(named)
    }

    /// The checkpoint of a preset that runs as its checkpoint does, so that jobs of both share their forwards.
    pub(crate) fn base_of(&self, entry: &ModelEntry) -> Option<Arc<ModelEntry>> {
        let Preset { checkpoint, .. } = entry.preset.as_ref()?;
        let base = self
            .find(ModelRole::Checkpoint, &ModelId::new(checkpoint.as_deref()?))
            .ok()?;
        let runs_alike = |one: &ModelEntry, other: &ModelEntry| {
            one.scheduler == other.scheduler && one.prediction == other.prediction && one.role == other.role
        };
        runs_alike(entry, &base).then_some(base)
    }
}

impl Named {
    /// Each once: a preset's embedding may be named by the request, too, and one that is named is mostly written as well.
    fn add_embeddings(&mut self, embeddings: Vec<Arc<ModelEntry>>) {
        for embedding in embeddings {
            if !self.embeddings.iter().any(|known| Arc::ptr_eq(known, &embedding)) {
                self.embeddings.push(embedding);
            }
        }
    }

    fn beside_checkpoint(&self) -> impl Iterator<Item = (ModelRole, &Arc<ModelEntry>)> {
        let vae = self.vae.iter().map(|entry| (ModelRole::Vae, entry));
        let loras = self.loras.iter().map(|(entry, _)| (ModelRole::Lora, entry));
        let embeddings = self.embeddings.iter().map(|entry| (ModelRole::Embedding, entry));
        vae.chain(loras).chain(embeddings)
    }
}
