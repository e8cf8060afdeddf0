//! What the names in a recipe stand for, with the files on this machine.

use std::sync::Arc;

use pentimento_catalog::{ModelEntry, ModelKind};
use pentimento_engine::ResolvedModels;
use pentimento_types::{Recipe, StrengthRule};

use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{ModelRole, NamedModels, ServiceError};

impl Inner {
    /// What the names of a recipe stand for.
    pub(crate) async fn resolve_models(&self, recipe: &Recipe) -> Result<ResolvedModels, ServiceError> {
        let (catalog, asked) = (Arc::clone(&self.catalog), recipe.clone());
        // Unknown names first: they are wrong whatever is here. A long prompt is searched for words, so not on this thread.
        let named = off_thread(move || NamedModels::of(&catalog, &asked)).await?;
        let lcm_loras = self.lcm_loras(recipe, named.checkpoint()).await?;
        let usable = self.usable(named.entries()).await?;
        let named = named.located(usable);
        let embeddings = self
            .read_embeddings(named.embeddings(), named.checkpoint(), recipe)
            .await?;
        Ok(ResolvedModels {
            lcm_loras,
            ..named.resolved(embeddings)
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
}
