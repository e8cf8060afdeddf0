//! Which textual inversions a request uses: those that it names, and those of the catalogue whose words its prompts have.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_engine::{PipelineError, PromptEmbedding};
use pentimento_types::{JobNote, Recipe, describe_chain};

use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{ModelRole, ServiceError};

impl Inner {
    /// Reads embeddings whose files are here.
    pub(crate) async fn read_embeddings(
        &self,
        entries: &[Arc<ModelEntry>],
        checkpoint: &ModelEntry,
    ) -> Result<Vec<PromptEmbedding>, ServiceError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (files, checkpoint) = (self.embedding_files.clone(), checkpoint.name.clone());
        let entries = entries.to_vec();
        off_thread(move || {
            let mut all = Vec::new();
            for entry in entries {
                all.extend(files.read(&entry).map_err(|error| refused(error, &checkpoint))?);
            }
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
    let prompts = [recipe.prompt.as_str(), recipe.negative_text()];
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
