//! What the names in a recipe stand for, with the files on this machine.

use std::sync::Arc;

use pentimento_catalog::{BaseModel, Catalog, ModelEntry, ModelKind, Unavailable};
use pentimento_engine::{CheckpointFacts, ResolvedModels};
use pentimento_types::{JobNote, Recipe, describe_chain};

use crate::inner::{Inner, PLANS_AT_ONCE};
use crate::looks::PATIENCE;
use crate::off_thread::off_thread;
use crate::{ModelRole, NamedModels, ServiceError};

impl Inner {
    /// What the names of a recipe stand for, and what a caller should be told about it.
    pub(crate) async fn resolve_models(
        &self,
        recipe: &Recipe,
    ) -> Result<(ResolvedModels, Vec<JobNote>), ServiceError> {
        let (catalog, asked) = (Arc::clone(&self.catalog), recipe.clone());
        // Unknown names first: they are wrong whatever is here. A long prompt is searched for words, so not on this thread.
        let named = off_thread(move || NamedModels::of(&catalog, &asked)).await?;
        let may_need_lcm = named.may_need_lcm_lora(recipe);
        let usable = match self.usable(named.entries()).await {
            Err(error @ ServiceError::ModelOnItsWay { .. }) => {
                if may_need_lcm {
                    self.begin_lcm_lora(named.checkpoint()).await;
                }
                return Err(error);
            }
            other => other?,
        };
        let named = named.located(usable);
        let lcm_loras = if may_need_lcm {
            self.lcm_loras(named.checkpoint()).await?
        } else {
            None
        };
        let (embeddings, notes) = self.read_embeddings(&named, recipe).await?;
        let models = ResolvedModels {
            lcm_loras,
            ..named.resolved(embeddings)
        };
        Ok((models, notes))
    }

    /// Begins to fetch the LCM-LoRA together with a checkpoint that is still on its way, where its base is known.
    async fn begin_lcm_lora(&self, checkpoint: &ModelEntry) {
        if checkpoint.base.is_some() && self.hub.under_way(checkpoint).is_some() {
            for entry in lcm_loras_for(&self.catalog, checkpoint.base) {
                self.begin_to_obtain(ModelRole::Lora, &entry).await;
            }
        }
    }

    /// The LCM-LoRA for the base of a checkpoint that is here: None where its files show that it needs none. One that the
    /// catalogue has is used or fails the request, so that the same request never makes another picture.
    async fn lcm_loras(
        &self,
        checkpoint: &Arc<ModelEntry>,
    ) -> Result<Option<Vec<Arc<ModelEntry>>>, ServiceError> {
        let Some(facts) = self.facts_of(checkpoint).await? else {
            return Ok(Some(Vec::new()));
        };
        if facts.is_distilled {
            return Ok(None);
        }
        let wanted = lcm_loras_for(&self.catalog, facts.base);
        let wanted = wanted.into_iter().map(|entry| (ModelRole::Lora, entry)).collect();
        self.usable(wanted).await.map(Some)
    }

    /// None where it cannot be read, which its load will explain.
    pub(crate) async fn facts_of(
        &self,
        checkpoint: &Arc<ModelEntry>,
    ) -> Result<Option<CheckpointFacts>, ServiceError> {
        let unavailable = |reason: String| ServiceError::ModelUnavailable {
            role: ModelRole::Checkpoint,
            name: checkpoint.name.clone(),
            reason,
        };
        let turns = self
            .plan_turns
            .get_or_make((ModelRole::Checkpoint, checkpoint.name.clone()), PLANS_AT_ONCE);
        let asked = Arc::clone(checkpoint);
        let facts = async move {
            let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
            off_thread(move || {
                let _turn = turn;
                Ok(CheckpointFacts::of(&asked))
            })
            .await
        };
        let facts = tokio::select! {
            facts = facts => facts?,
            () = self.clock.sleep_until(self.clock.now() + PATIENCE) => {
                let path = checkpoint.source.to_string().into();
                return Err(unavailable(Unavailable::NotAnswering { path }.to_string()));
            }
        };
        match facts {
            Ok(facts) => Ok(Some(facts)),
            Err(error) => {
                tracing::info!(model = %checkpoint.name, error = describe_chain(&error), "it cannot be read");
                if error.is_permanent() {
                    Ok(None)
                } else {
                    Err(unavailable("its files could not be read".to_owned()))
                }
            }
        }
    }
}

/// The LCM-LoRA that is said to be for this base, or where none is, those of which no base is said.
fn lcm_loras_for(catalog: &Catalog, base: Option<BaseModel>) -> Vec<Arc<ModelEntry>> {
    let all = catalog
        .entries()
        .iter()
        .filter(|entry| entry.kind == ModelKind::Lora && entry.role.as_deref() == Some(ModelEntry::ROLE_LCM));
    let mut said = all
        .clone()
        .filter(|entry| entry.base.is_some() && entry.base == base);
    match said.next() {
        Some(entry) => vec![Arc::clone(entry)],
        None => all.filter(|entry| entry.base.is_none()).cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn one_lcm_lora_is_for_a_base() {
        let lora = |name: &str, base: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nkind = \"lora\"\nsource = \"{name}.safetensors\"\nrole = \"lcm\"\n{base}\n"
            )
        };
        let text = [
            lora("any", ""),
            lora("one", "base = \"sd15\""),
            lora("xl", "base = \"sdxl\""),
        ];
        let catalog = Catalog::from_text(&text.concat(), Path::new("models.toml")).unwrap();
        let names = |base| {
            let found = lcm_loras_for(&catalog, base);
            found.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(BaseModel::Sdxl)), ["xl"]);
        assert_eq!(names(Some(BaseModel::Sd2)), ["any"]);
        assert_eq!(names(None), ["any"]);
    }
}
