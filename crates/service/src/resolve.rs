//! What the names in a recipe stand for, with the files on this machine.

use std::sync::Arc;

use pentimento_catalog::{BaseModel, Catalog, ModelEntry, ModelKind, Unavailable};
use pentimento_engine::{CheckpointFacts, ResolvedModels};
use pentimento_types::{JobNote, ModelId, Recipe, describe_chain};

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

    /// Begins to fetch the LCM-LoRA together with a checkpoint that is still on its way, where the entry says which it is.
    async fn begin_lcm_lora(&self, checkpoint: &ModelEntry) {
        let is_said = checkpoint.base.is_some() || checkpoint.lcm_lora.is_some();
        if is_said && self.hub.under_way(checkpoint).is_some() {
            for entry in lcm_loras_for(&self.catalog, checkpoint, checkpoint.base) {
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
        let wanted = lcm_loras_for(&self.catalog, checkpoint, facts.base);
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

/// The LCM-LoRA that the checkpoint names, or the one that is said to be for its base, or where none is, those of which no base is
/// said.
fn lcm_loras_for(
    catalog: &Catalog,
    checkpoint: &ModelEntry,
    base: Option<BaseModel>,
) -> Vec<Arc<ModelEntry>> {
    if let Some(name) = &checkpoint.lcm_lora {
        // A catalogue names no LoRA that it has not.
        return catalog
            .resolve(&ModelId::new(name), ModelKind::Lora)
            .into_iter()
            .collect();
    }
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

    use pentimento_catalog::Source;

    use super::*;

    #[test]
    fn a_checkpoint_has_its_own_lcm_lora_or_its_bases() {
        let lora = |name: &str, base: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nkind = \"lora\"\nsource = \"{name}.safetensors\"\nrole = \"lcm\"\n{base}\n"
            )
        };
        let text = [
            lora("any", ""),
            lora("one", "base = \"sd15\""),
            lora("xl", "base = \"sdxl\""),
            "[[model]]\nname = \"own\"\nkind = \"lora\"\nsource = \"own.safetensors\"\n".to_owned(),
        ];
        let catalog = Catalog::from_text(&text.concat(), Path::new("models.toml")).unwrap();
        let names_for = |lcm_lora: Option<&str>, base| {
            let checkpoint = ModelEntry {
                lcm_lora: lcm_lora.map(str::to_owned),
                ..ModelEntry::new("c", ModelKind::Checkpoint, Source::Path("c".into()))
            };
            let found = lcm_loras_for(&catalog, &checkpoint, base);
            found.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>()
        };
        let names = |base| names_for(None, base);
        // It is known by any of its names.
        assert_eq!(names_for(Some("own.safetensors"), Some(BaseModel::Sd15)), ["own"]);
        assert_eq!(names(Some(BaseModel::Sdxl)), ["xl"]);
        assert_eq!(names(Some(BaseModel::Sd2)), ["any"]);
        assert_eq!(names(None), ["any"]);
    }
}
