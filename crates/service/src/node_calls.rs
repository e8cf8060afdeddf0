//! What is asked and told of the other machines of a cluster.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pentimento_engine::ResolvedModels;
use pentimento_jobs::ModelsBeside;
use pentimento_types::{Job, JobId, JobState, Progress, Recipe};

use crate::inner::Inner;
use crate::nodes::{Made, Node, missing_of};
use crate::{ModelRole, NamedModels, Service, ServiceError};

impl Service {
    /// The machines of the cluster; None where there is none.
    #[must_use]
    pub fn nodes(&self) -> Option<Vec<Node>> {
        self.inner.nodes.as_ref().map(|nodes| nodes.all())
    }

    /// Whether the other machines of a cluster can be heard.
    #[must_use]
    pub fn are_nodes_heard(&self) -> bool {
        self.inner.nodes.as_ref().is_some_and(|nodes| nodes.are_heard())
    }

    /// A job has been changed, by whichever machine. One that has ended is not run here any more, and watchers hear of it; what
    /// this machine has stored for it is deleted.
    pub fn heard_of(&self, job: &Job) {
        let inner = &self.inner;
        inner.watched.note(job);
        // An attempt of this machine does so itself, and at a start, which hears of everything that has ended, the sweeper.
        let ends_elsewhere =
            job.state.is_final() && inner.progress.knows(job.id) && !inner.attempts.contains(job.id);
        if ends_elsewhere && inner.store.is_ours(job) {
            let (inner, id) = (Arc::clone(inner), job.id);
            self.inner
                .runtime
                .spawn(async move { inner.delete_input(id).await });
        }
        match job.state {
            JobState::Cancelled | JobState::Failed => {
                inner.engine.cancel(job.id);
                inner.progress.forget(job.id);
            }
            JobState::Succeeded => inner.progress.forget(job.id),
            JobState::Running => inner.progress.note_elsewhere(job),
            JobState::Fetching | JobState::Queued => {}
        }
    }

    /// How far a job is that runs on another machine.
    pub fn heard_progress(&self, id: JobId, attempt: u32, progress: Progress) {
        self.inner.progress.heard(id, progress);
        self.inner.watched.progress(id, attempt, progress);
    }

    /// What this machine has made, by which others see how fast it is.
    #[must_use]
    pub fn made(&self) -> Made {
        Made {
            images: self.inner.images_made.load(Ordering::Relaxed),
            device_time: self.inner.engine.device_time(),
        }
    }

    /// Catalogue names of the models whose files are on this machine.
    pub async fn models_here(&self) -> Vec<String> {
        let states = self.model_states(self.catalog().entries()).await;
        let available = states.into_iter().filter(|(_, state)| state.is_available());
        available.map(|(entry, _)| entry.name.clone()).collect()
    }
}

impl Inner {
    /// Refuses by name what no machine that runs jobs has, before it waits for one for ever. What is heard of nobody is not
    /// refused: the broker may be away, and the job waits in this machine's own records.
    pub(crate) fn check_served(&self, recipe: &Recipe, models: &ResolvedModels) -> Result<(), ServiceError> {
        let Some(nodes) = &self.nodes else { return Ok(()) };
        if !nodes.are_heard() {
            return Ok(());
        }
        let named = NamedModels::without_prompts(&self.catalog, &recipe.model, &ModelsBeside::of(recipe))?;
        let lcm_loras = models.lcm_loras.iter().flatten();
        let lcm_loras = lcm_loras.map(|entry| (ModelRole::Lora, Arc::clone(entry)));
        let needed: Vec<_> = named.entries().into_iter().chain(lcm_loras).collect();
        let names = needed.iter().map(|(role, entry)| (*role, entry.name.as_str()));
        missing_of(&nodes.all(), &names.collect::<Vec<_>>()).map_or(Ok(()), Err)
    }

    /// Tells others, and those who watch here are told elsewhere.
    pub(crate) fn tell_progress(&self, id: JobId, attempt: u32, progress: Progress) {
        if let Some(nodes) = &self.nodes {
            nodes.tell_progress(id, attempt, progress);
        }
    }
}
