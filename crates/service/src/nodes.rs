//! The other machines that share jobs with this one, as far as the use cases need to know of them.
//!
//! Nothing here knows how they are reached. What is heard of them is hearsay: a job's record is the truth of its state, and a
//! machine that is silent has not been heard of for a while.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use pentimento_types::{JobId, Progress};

use crate::{ModelRole, ServiceError};

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

/// Why none of these machines can run a job that needs these models.
pub(crate) fn missing_of(nodes: &[Node], names: &[(ModelRole, &str)]) -> Option<ServiceError> {
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
