//! Which textual inversions a request uses: those that it names, and those of the catalogue whose words its prompts have.

use std::sync::Arc;

use pentimento_catalog::{Catalog, ModelEntry};
use pentimento_engine::{CheckpointFacts, EmbeddingFiles, PipelineError, PromptEmbedding};
use pentimento_hub::{Found, Hub};
use pentimento_types::{JobNote, Recipe, describe_chain};

use crate::inner::{Inner, PLANS_AT_ONCE};
use crate::off_thread::off_thread;
use crate::{ModelRole, NamedModels, ServiceError};

/// What can be told of files that only a word asks for.
const NOT_HERE: &str = "its files are not on this machine, and they are fetched for a request that names it";
const UNREADABLE: &str = "its file cannot be read";
const UNFIT: &str = "it is for another base than the checkpoint's";

impl NamedModels {
    /// Reads the embeddings whose files are here: those that are named, those in `written_here` and those that a prompt calls
    /// by the token of their file or of a LoRA. The notes are about words that stay text. Waits for the disk.
    ///
    /// # Errors
    /// When one that is named cannot be read.
    pub fn read_embeddings(
        &self,
        written_here: &[Arc<ModelEntry>],
        recipe: &Recipe,
        (catalog, hub, files): (&Catalog, &Hub, &EmbeddingFiles),
    ) -> Result<(Vec<PromptEmbedding>, Vec<JobNote>), PipelineError> {
        let mut all = Vec::new();
        for entry in self.embeddings() {
            all.extend(files.read(entry)?);
        }
        let (mut called, mut notes) = (Vec::new(), Vec::new());
        for entry in written_here {
            match files.read(entry) {
                Ok(found) => called.extend(found),
                Err(error) => {
                    tracing::info!(error = describe_chain(&error), "an embedding's word stays text");
                    notes.push(left_out(&entry.name, UNREADABLE));
                }
            }
        }
        let prompts = [recipe.prompt.as_str(), recipe.negative_text()];
        let known = [self.embeddings(), self.written()].concat();
        let locate = |entry: &Arc<ModelEntry>| {
            let found = hub.look(entry);
            let Found::Ready(located) = found else { return None };
            Some(located)
        };
        let checkpoint = self.checkpoint();
        called.extend(files.by_token(catalog.entries(), &known, (checkpoint, prompts), locate));
        // A LoRA that cannot be read is refused by its own name a moment later.
        called.extend(files.bundled_in(self.loras(), prompts).unwrap_or_default());
        // A checkpoint that cannot be read is refused by its load.
        if let Some(facts) = (!called.is_empty())
            .then(|| CheckpointFacts::of(checkpoint).ok())
            .flatten()
        {
            called.retain(|embedding| {
                let fits = facts.takes(embedding);
                if !fits {
                    notes.push(left_out(embedding.name(), UNFIT));
                }
                fits
            });
        }
        notes.dedup();
        all.extend(called);
        Ok((all, notes))
    }

    /// What to tell of the embeddings whose words the prompts have and that are not among those whose files are here.
    #[must_use]
    pub fn left_out(&self, written_here: &[Arc<ModelEntry>]) -> Vec<JobNote> {
        let is_here = |name: &str| written_here.iter().any(|entry| entry.name == name);
        let absent = self.written().iter().filter(|entry| !is_here(&entry.name));
        absent.map(|entry| left_out(&entry.name, NOT_HERE)).collect()
    }
}

fn left_out(embedding: &str, reason: &str) -> JobNote {
    JobNote::EmbeddingLeftOut {
        embedding: embedding.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Inner {
    /// Reads embeddings whose files are here, and finds those that a prompt calls by the token of their file or of a LoRA.
    pub(crate) async fn read_embeddings(
        &self,
        named: &NamedModels,
        recipe: &Recipe,
    ) -> Result<(Vec<PromptEmbedding>, Vec<JobNote>), ServiceError> {
        let written_here = self.written_here(named.written()).await;
        let mut left_out = named.left_out(&written_here);
        let (files, catalog, hub) = (
            self.embedding_files.clone(),
            Arc::clone(&self.catalog),
            self.hub.clone(),
        );
        let (named, asked) = (named.clone(), recipe.clone());
        let checkpoint = named.checkpoint().name.clone();
        let turns = self
            .plan_turns
            .get_or_make((ModelRole::Checkpoint, checkpoint.clone()), PLANS_AT_ONCE);
        let turn = turns.acquire_owned().await.map_err(ServiceError::internal)?;
        let (embeddings, notes) = off_thread(move || {
            let _turn = turn;
            let read = named.read_embeddings(&written_here, &asked, (&catalog, &hub, &files));
            read.map_err(|error| refused(error, &checkpoint))
        })
        .await?;
        left_out.extend(notes);
        Ok((embeddings, left_out))
    }

    /// Those whose files are here, by the entries that say where. Files that have to be compared with their sha256 are; nothing
    /// is fetched.
    async fn written_here(&self, written: &[Arc<ModelEntry>]) -> Vec<Arc<ModelEntry>> {
        let looks: Vec<_> = written
            .iter()
            .map(|entry| {
                let (looks, hub, entry) = (Arc::clone(&self.looks), self.hub.clone(), Arc::clone(entry));
                tokio::spawn(async move { looks.look(&hub, &entry).await })
            })
            .collect();
        let mut here = Vec::new();
        for (entry, look) in written.iter().zip(looks) {
            match look.await {
                Ok(Found::Ready(located)) => here.push(located),
                Ok(Found::Unchecked) => {
                    let checked = self.usable(vec![(ModelRole::Embedding, Arc::clone(entry))]).await;
                    here.extend(checked.unwrap_or_default());
                }
                _ => {}
            }
        }
        here
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
