//! Jobs of several machines: the traits of `jobs` over a broker (NATS JetStream from 2.9 on).
//!
//! Invariant: the broker is transport and not the record. The node that has accepted a job keeps it in its own journal until it
//! has ended and puts it before the others again when the broker has lost it; so no broker that stops, starts or comes back
//! empty loses or doubles one.

mod affinity;
mod asking;
mod bucket;
mod connection;
mod deletions;
mod envelope;
mod error;
mod failures;
mod forgetting;
mod keeper;
mod marks;
mod members;
mod mirror;
mod names;
mod node_id;
mod outbox;
mod presence;
mod queue;
mod resident_first;
mod settings;
mod shared;
mod shared_secret;
mod sharing;
mod store;
mod subjects;
mod tasks;
mod unsettled;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use pentimento_jobs::{JobLimits, JobQueue, JobsError, SqliteJobs};
use pentimento_types::Clock;

use deletions::Deletions;
use failures::failed;
use store::Kept;

pub use affinity::{Affinity, OldestFirst, WaitingModel};
pub use connection::Connection;
pub use error::ClusterError;
pub use members::{Announcement, Member, Members};
pub use node_id::{NodeId, NodeIdRefused};
pub use presence::{Announcer, Presence};
pub use resident_first::{ResidentFirst, Stock};
pub use settings::{ClusterName, ClusterSettings, Credentials};
pub use store::ClusterJobs;
pub use subjects::ModelToken;

/// What a node of a cluster is made of.
#[derive(Debug)]
pub struct ClusterParts {
    /// Its name, the same over its restarts.
    pub node: NodeId,
    /// Its journal.
    pub own: SqliteJobs,
    /// The folder of its own beside the journal.
    pub folder: PathBuf,
    /// The bounds of the journal, which the copies of other nodes' jobs keep as well.
    pub limits: JobLimits,
    /// The line to the broker.
    pub connection: Connection,
    /// Which jobs it prefers.
    pub affinity: Arc<dyn Affinity>,
    /// Whether it claims jobs, or only takes them from callers.
    pub runs_jobs: bool,
    /// By which records are dated.
    pub clock: Arc<dyn Clock>,
}

/// A node's part in the jobs of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Records and outbox.
    pub jobs: ClusterJobs,
    /// Who runs next.
    pub queue: Arc<dyn JobQueue>,
}

impl Cluster {
    /// Puts a node together. Jobs that its journal has from before go on.
    ///
    /// # Errors
    /// What keeps the journal from being read.
    pub async fn start(parts: ClusterParts) -> Result<Self, JobsError> {
        let ClusterParts {
            node,
            own,
            folder,
            limits,
            connection,
            affinity,
            runs_jobs,
            clock,
        } = parts;
        let read = tokio::task::spawn_blocking(move || Deletions::in_folder(&folder)).await;
        let what = "read which jobs are deleted";
        let deletions = read.map_err(failed(what))?.map_err(failed(what))?;
        let (queue, shared) =
            queue::ClusterQueue::start(node.clone(), connection.clone(), (affinity, runs_jobs));
        let kept = Kept {
            own,
            deletions,
            limits,
        };
        let jobs = ClusterJobs::start(node, kept, (connection, shared), clock).await?;
        Ok(Self {
            jobs,
            queue: Arc::new(queue),
        })
    }
}
