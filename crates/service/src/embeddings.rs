//! Which textual inversions a request uses: those that it names, and those of the catalogue whose words its prompts have.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_engine::{PipelineError, PromptEmbedding};
use pentimento_types::{JobNote, Recipe, describe_chain};

use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{ModelRole, ServiceError};

impl Inner {
    /// Reads embeddings whose files are here, and finds those that a prompt calls by the token of their file.
    pub(crate) async fn read_embeddings(
        &self,
        entries: &[Arc<ModelEntry>],
        checkpoint: &Arc<ModelEntry>,
        recipe: &Recipe,
    ) -> Result<Vec<PromptEmbedding>, ServiceError> {
        let (files, catalog) = (self.embedding_files.clone(), Arc::clone(&self.catalog));
        let (entries, checkpoint) = (entries.to_vec(), Arc::clone(checkpoint));
        let prompts = [recipe.prompt.clone(), recipe.negative_prompt.clone()];
        off_thread(move || {
            let mut all = Vec::new();
            for entry in &entries {
                all.extend(files.read(entry).map_err(|error| refused(error, &checkpoint.name))?);
            }
            let prompts = prompts.each_ref().map(String::as_str);
            all.extend(files.by_token(catalog.entries(), &entries, &checkpoint, prompts));
            Ok(all)
        })
        .await
    }
}

/// An embedding whose file cannot be used.
fn refused(error: PipelineError, checkpoint: &str) -> ServiceError {
    tracing::info!(error = describe_chain(&error), "an embedding is refused");
    let Some((_, name, reason)) = error.refused_beside() else {
        return ServiceError::internal(error);
    };
    let (role, name) = (ModelRole::Embedding, name.to_owned());
    if error.is_permanent() {
        ServiceError::ModelUnfit {
            role,
            name,
            checkpoint: checkpoint.to_owned(),
            reason,
        }
    } else {
        ServiceError::ModelUnavailable { role, name, reason }
    }
}

/// What a caller should be told: an embedding whose word is in neither prompt changes nothing.
pub(crate) fn unused_notes(recipe: &Recipe, embeddings: &[PromptEmbedding]) -> Vec<JobNote> {
    let prompts = [&recipe.prompt, &recipe.negative_prompt];
    let used = |name: &str| {
        let mut same = embeddings.iter().filter(|embedding| embedding.name() == name);
        same.any(|embedding| prompts.iter().any(|prompt| embedding.is_in(prompt)))
    };
    let mut names: Vec<&str> = embeddings.iter().map(PromptEmbedding::name).collect();
    names.dedup();
    let unused = names.into_iter().filter(|name| !used(name));
    unused
        .map(|name| JobNote::EmbeddingUnused {
            embedding: name.to_owned(),
        })
        .collect()
}
