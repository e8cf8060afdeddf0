//! The other machines that share jobs with this one, as far as the use cases need to know of them.
//!
//! Nothing here knows how they are reached. What is heard of them is hearsay: a job's record is the truth of its state, and a
//! machine that is silent has not been heard of for a while.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pentimento_types::{Job, JobId, JobState, Progress};

use crate::inner::Inner;
use crate::{ModelRole, Service, ServiceError};

/// One machine of a cluster, by its latest word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, the same over its restarts.
    pub name: String,
    /// Whether it is this one.
    pub is_here: bool,
    /// Whether it answers callers.
    pub answers: bool,
    /// Whether it runs jobs.
    pub works: bool,
    /// Whether it is stopping, so that it takes no further job.
    pub draining: bool,
    /// Of its program.
    pub version: String,
    /// What computes.
    pub device: String,
    /// In which numbers.
    pub precision: String,
    /// Room for weights in bytes, and what of it is taken.
    pub memory_bytes: u64,
    pub held_bytes: u64,
    /// Jobs that it runs now, and how many it would run at once.
    pub running: usize,
    pub slots: usize,
    /// Images that it has made and the milliseconds that its device took for them, since its start.
    pub images: u64,
    pub device_milliseconds: u64,
    /// Catalogue names of the checkpoints in its memory.
    pub resident_models: Vec<String>,
    /// Catalogue names of all models whose files it has; None where they are too many to tell, which counts as all.
    pub models: Option<Vec<String>>,
    /// Seconds since it was heard.
    pub heard_seconds_ago: u64,
}

/// What this machine has made since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Images.
    pub images: u64,
    /// What its device took for them.
    pub device_time: Duration,
}

/// How the others are heard and told.
pub trait Nodes: Send + Sync + Debug {
    /// Everybody who has been heard of lately, this machine first.
    fn all(&self) -> Vec<Node>;

    /// Whether others can be heard now; while they cannot, nothing follows from their silence.
    fn are_heard(&self) -> bool;

    /// Tells the others how far a job is that runs here. Never waits; what is lost is told again with the next.
    fn tell_progress(&self, id: JobId, attempt: u32, progress: Progress);
}

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

    /// A job has been changed, by whichever machine. One that has ended is not run here any more, and watchers hear of it.
    pub fn heard_of(&self, job: &Job) {
        let inner = &self.inner;
        inner.watched.note(job);
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
    pub(crate) fn check_served(&self, names: &[(ModelRole, &str)]) -> Result<(), ServiceError> {
        let Some(nodes) = &self.nodes else { return Ok(()) };
        if !nodes.are_heard() {
            return Ok(());
        }
        missing_of(&nodes.all(), names).map_or(Ok(()), Err)
    }

    /// Tells others, and those who watch here are told elsewhere.
    pub(crate) fn tell_progress(&self, id: JobId, attempt: u32, progress: Progress) {
        if let Some(nodes) = &self.nodes {
            nodes.tell_progress(id, attempt, progress);
        }
    }
}

/// Why none of these machines can run a job that needs these models.
fn missing_of(nodes: &[Node], names: &[(ModelRole, &str)]) -> Option<ServiceError> {
    let workers: Vec<&Node> = nodes.iter().filter(|node| node.works && !node.draining).collect();
    // How many of them each lacks; the one that lacks the fewest says what is missing.
    let lacks = |node: &&Node| names.iter().filter(|(_, name)| !node.has(name)).count();
    let Some(nearest) = workers.iter().min_by_key(|node| lacks(node)) else {
        return Some(ServiceError::NoWorker);
    };
    let on_none = |name: &str| !workers.iter().any(|node| node.has(name));
    let of_nearest = |name: &str| !nearest.has(name);
    if lacks(nearest) == 0 {
        return None;
    }
    let nowhere = names.iter().find(|(_, name)| on_none(name));
    let missing = nowhere.or_else(|| names.iter().find(|(_, name)| of_nearest(name)));
    missing.map(|(role, name)| ServiceError::NotServed {
        role: *role,
        name: (*name).to_owned(),
    })
}

impl Node {
    fn has(&self, name: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|model| model == name))
    }
}

/// For [`crate::ServiceParts`].
pub(crate) type AllNodes = Option<Arc<dyn Nodes>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(models: &[&str]) -> Node {
        Node {
            works: true,
            models: Some(models.iter().map(|name| (*name).to_owned()).collect()),
            ..Node::default()
        }
    }

    fn missing(nodes: &[Node], names: &[&str]) -> Option<String> {
        let names: Vec<(ModelRole, &str)> = names.iter().map(|name| (ModelRole::Checkpoint, *name)).collect();
        missing_of(nodes, &names).map(|error| error.to_string())
    }

    #[test]
    fn what_no_worker_has_is_refused_by_its_name() {
        let nodes = [worker(&["a", "b"]), worker(&["c"])];
        assert_eq!(missing(&nodes, &["a"]), None);
        assert_eq!(missing(&nodes, &["a", "b"]), None);
        assert!(missing(&nodes, &["d"]).unwrap().contains("\"d\""));
        assert!(
            missing(&nodes, &["a", "c"]).unwrap().contains("\"c\""),
            "no worker has both"
        );
        let all = Node {
            models: None,
            ..worker(&[])
        };
        assert_eq!(
            missing(&[all], &["d"]),
            None,
            "its catalogue was too long to tell"
        );
    }

    #[test]
    fn one_that_only_answers_or_is_stopping_is_no_worker() {
        let answers = Node {
            works: false,
            answers: true,
            ..worker(&["a"])
        };
        let draining = Node {
            draining: true,
            ..worker(&["a"])
        };
        assert_eq!(
            missing(&[answers, draining], &["a"]),
            Some(ServiceError::NoWorker.to_string())
        );
        assert_eq!(missing(&[], &["a"]), Some(ServiceError::NoWorker.to_string()));
    }
}
