//! Who runs which job of the cluster.
//!
//! ```text
//!   push ──▶ the lines of this node ──▶ the stream, one subject per job ──▶ claim, by any node
//!                   │  (feed.rs)                                             (pull.rs)
//!                   └──▶ the queue of this process: what stays here, and everything while the broker is away
//! ```
//!
//! A message stays in the stream until its job has ended, so that the broker hands it to another node when its holder falls
//! silent. That alone tells nobody who is right: an acknowledgement of the old holder counts as much as the new one's. So each
//! claim is written into a bucket as well, by compare-and-set, and whoever does not find its own there has lost the job.

mod feed;
mod hints;
mod lines;
mod pull;
mod tend;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::Acker;
use async_trait::async_trait;
use pentimento_jobs::{Claim, JobQueue, JobsError, LocalQueue, QueueEntry};
use pentimento_types::{ApiKeyId, Clock as _, JobId, ModelId, SystemClock, describe_chain};
use tokio::sync::{Notify, oneshot};

use crate::bucket::NotWritten;
use crate::connection::Connection;
use crate::envelope::{Lease, plain, read_plain};
use crate::failures::failed;
use crate::subjects::job_key;
use crate::tasks::Tasks;
use crate::unsettled::Unsettled;
use crate::{Affinity, ModelToken, NodeId};

use hints::HomeNews;
use lines::Lines;

/// Claims on jobs of the cluster have this bit in their tokens, those of this process's own queue do not.
const OF_CLUSTER: u64 = 1 << 63;
/// Between two looks for work of which nobody has told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The queue of a cluster, as one node sees it.
#[derive(Debug)]
pub(crate) struct ClusterQueue {
    shared: Arc<Shared>,
    _tasks: Tasks,
}

/// What tasks and callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    node: NodeId,
    connection: Connection,
    affinity: Arc<dyn Affinity>,
    /// Whether anybody claims jobs here.
    runs_jobs: bool,
    /// What only this process runs.
    here: Arc<LocalQueue>,
    state: Mutex<State>,
    /// Wakes who waits for a job of the cluster.
    work: Notify,
    /// Wakes who puts jobs out.
    feed: Notify,
    /// Jobs whose entries have left the queue, so that whoever has accepted them looks whether they have ended.
    unsettled: Arc<Unsettled>,
    /// Held while messages are asked for: two who asked at once would get two where one is wanted.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    lines: Lines,
    /// What waits in the stream, as far as this node has heard.
    waiting: BTreeMap<ModelToken, BTreeSet<JobId>>,
    /// What checkpoints are called.
    models: HashMap<ModelToken, ModelId>,
    held: HashMap<JobId, Held>,
    /// Jobs that need not be run any more, whose messages may be on their way, and since when.
    forgotten: HashMap<JobId, Instant>,
    /// Jobs in a form that a newer node has written, and until when this node does not ask for them.
    newer: HashMap<JobId, Instant>,
    /// Claimed for somebody who has gone away meanwhile.
    unclaimed: Vec<(Claim, Instant)>,
    /// Leases that were in the way of a message, their revisions, and since when they have not changed.
    suspects: HashMap<JobId, (u64, Instant)>,
    consumers: HashMap<ModelToken, PullConsumer>,
    /// Consumers that this node has made, since which epoch.
    made: (u64, HashSet<ModelToken>),
    last_token: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("lines", &self.lines)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl State {
    /// What a checkpoint is called. As many as no catalogue has, so that nobody fills the memory with names.
    fn learn(&mut self, model: &ModelId) -> ModelToken {
        const MOST: usize = 10_000;
        let token = ModelToken::of(model);
        if self.models.len() < MOST {
            self.models.insert(token.clone(), model.clone());
        }
        token
    }

    /// Takes one of the claims that nobody has asked for.
    fn take_unclaimed(&mut self, fits: impl Fn(&Claim) -> bool) -> Option<Claim> {
        let at = self.unclaimed.iter().position(|(claim, _)| fits(claim))?;
        Some(self.unclaimed.swap_remove(at).0)
    }
}

/// A claim of this node on a job of the cluster.
struct Held {
    token: u64,
    entry: QueueEntry,
    home: NodeId,
    acker: Arc<Acker>,
    /// Of the lease in its bucket.
    revision: u64,
    /// Of the message; 0 once the broker has lost it, so that nobody takes another one for it.
    sequence: u64,
    /// Its message came again, so that its worker is silent; it is asked once more.
    is_last_call: bool,
}

impl ClusterQueue {
    pub(crate) fn start(
        node: NodeId,
        connection: Connection,
        (affinity, runs_jobs): (Arc<dyn Affinity>, bool),
    ) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            node,
            connection,
            affinity,
            runs_jobs,
            here: Arc::new(LocalQueue::new(Arc::new(SystemClock))),
            state: Mutex::default(),
            work: Notify::new(),
            feed: Notify::new(),
            unsettled: Arc::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let tasks = Tasks::default();
        tasks.spawn(feed::run(Arc::clone(&shared)));
        tasks.spawn(hints::run(Arc::clone(&shared)));
        tasks.spawn(tend::run(Arc::clone(&shared)));
        let queue = Self {
            shared: Arc::clone(&shared),
            _tasks: tasks,
        };
        (queue, shared)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the table half changed, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where jobs go that are to be looked at.
    pub(crate) fn unsettled(&self) -> Arc<Unsettled> {
        Arc::clone(&self.unsettled)
    }

    /// A job of this node. Known ones are left as they are.
    pub(crate) async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        let stays = entry.stays || !self.connection.is_up();
        let is_known = {
            let mut state = self.lock();
            state.forgotten.remove(&entry.id);
            state
                .models
                .insert(ModelToken::of(&entry.model), entry.model.clone());
            let is_known = state.lines.contains(entry.id)
                || state.held.contains_key(&entry.id)
                || self.here.contains(entry.id);
            if !is_known && !stays {
                state.lines.push(entry.clone());
            }
            is_known
        };
        if !is_known && stays {
            self.here.push(entry).await?;
        }
        self.feed.notify_one();
        Ok(())
    }

    /// The broker is away: what nobody else has is run by this process.
    pub(crate) async fn keep_here(&self) -> Result<(), JobsError> {
        let ready = self.lock().lines.take_ready();
        for entry in ready {
            self.here.push(entry).await?;
        }
        Ok(())
    }

    /// The broker is back: what need not stay goes into the cluster.
    pub(crate) async fn share_again(&self) -> Result<(), JobsError> {
        for entry in self.here.take_waiting() {
            self.push(entry).await?;
        }
        self.feed.notify_one();
        self.work.notify_waiters();
        Ok(())
    }

    /// The broker has been away for so long that whoever had jobs of this node has lost them: they are this process's again. It may
    /// be away for this node alone, so one that could not run them leaves them to those who have them.
    pub(crate) fn take_out(&self) -> Vec<QueueEntry> {
        if !self.runs_jobs {
            return Vec::new();
        }
        self.lock().lines.take_out()
    }

    /// What this process alone runs.
    pub(crate) async fn push_here(&self, entry: QueueEntry) -> Result<(), JobsError> {
        self.here.push(entry).await
    }

    /// Whether this process runs the job without the cluster.
    pub(crate) fn is_here(&self, id: JobId) -> bool {
        self.here.contains(id)
    }

    /// Its job has ended: nothing of it need be in the queue any more.
    pub(crate) fn ended(&self, id: JobId) {
        self.lock().lines.remove(id);
        self.feed.notify_one();
    }

    /// Takes a job out of the stream that nobody need run.
    pub(crate) async fn purge(&self, id: JobId) -> Result<(), JobsError> {
        let rooms = self.connection.rooms().await?;
        for (number, stream) in &rooms.work {
            let subject = self.connection.subjects().work_of_job(*number, id);
            let purged = stream.purge().filter(subject).await;
            purged.map_err(failed("take a job out of the queue"))?;
        }
        Ok(())
    }

    /// A job that this node has found in its journal while the broker is away: another node may have it, so that it is not run
    /// here before that node would have lost it.
    pub(crate) fn note_out(&self, entry: QueueEntry) {
        let now = SystemClock.now();
        let lines = &mut self.lock().lines;
        if !lines.contains(entry.id) && !self.here.contains(entry.id) {
            lines.note_out(entry, now);
        }
    }

    /// Ends a claim that this node had in an earlier life, so that nobody waits for it to fall silent.
    pub(crate) async fn reclaim(&self, id: JobId) -> Result<(), JobsError> {
        if self.lock().held.contains_key(&id) {
            return Ok(());
        }
        let rooms = self.connection.rooms().await?;
        let key = job_key(id);
        let Some(found) = rooms.leases.get(&key).await? else {
            return Ok(());
        };
        let is_ours = read_plain::<Lease>(&found.bytes).is_some_and(|lease| lease.node == self.node);
        if is_ours && rooms.leases.delete(&key, Some(found.revision)).await.is_ok() {
            self.purge(id).await?;
        }
        Ok(())
    }

    fn lost(&self, claim: &Claim) -> JobsError {
        let id = claim.job();
        let mut state = self.lock();
        if state
            .held
            .get(&id)
            .is_some_and(|held| held.token == claim.token())
        {
            state.held.remove(&id);
        }
        JobsError::ClaimLost { id }
    }

    /// The lease of a claim, its revision, and where its message is acknowledged, if there is still one: the number of a
    /// message that the broker has lost is another message's by now.
    fn held(&self, claim: &Claim) -> Result<(Lease, u64, Option<Arc<Acker>>), JobsError> {
        let state = self.lock();
        let held = state.held.get(&claim.job());
        let held = held.filter(|held| held.token == claim.token());
        let held = held.ok_or(JobsError::ClaimLost { id: claim.job() })?;
        let lease = Lease {
            node: self.node.clone(),
            token: held.token,
            sequence: held.sequence,
        };
        let acker = (held.sequence != 0).then(|| Arc::clone(&held.acker));
        Ok((lease, held.revision, acker))
    }

    /// Writes the lease anew, which is refused to whoever has lost it. A broker that has lost its leases is told ours.
    async fn renew(&self, claim: &Claim) -> Result<Option<Arc<Acker>>, JobsError> {
        let (mut lease, mut revision, mut acker) = self.held(claim)?;
        let rooms = self.connection.rooms().await?;
        let key = job_key(claim.job());
        loop {
            let written = if revision == 0 {
                rooms.leases.create(&key, plain(&lease)).await
            } else {
                rooms.leases.update(&key, plain(&lease), revision).await
            };
            match written {
                Ok(renewed) => {
                    let mut state = self.lock();
                    if let Some(held) = state.held.get_mut(&claim.job()) {
                        held.revision = renewed;
                        held.sequence = lease.sequence;
                        held.is_last_call = false;
                    }
                    return Ok(acker);
                }
                Err(NotWritten::Failed(error)) => return Err(error),
                Err(NotWritten::Conflict) => {}
            }
            revision = match rooms.leases.get(&key).await? {
                None if revision == 0 => return Err(self.lost(claim)),
                None => {
                    (lease.sequence, acker) = (0, None);
                    0
                }
                Some(found) => match read_plain::<Lease>(&found.bytes) {
                    // An answer of the broker was lost.
                    Some(found_lease) if found_lease.token == lease.token => found.revision,
                    Some(_) | None => return Err(self.lost(claim)),
                },
            };
        }
    }

    /// Ends a lease that still holds.
    async fn end_lease(&self, claim: &Claim) -> Result<Option<Arc<Acker>>, JobsError> {
        let (lease, revision, acker) = self.held(claim)?;
        let ended = async {
            let rooms = self.connection.rooms().await?;
            let key = job_key(claim.job());
            let mut revision = revision;
            loop {
                match rooms.leases.delete(&key, Some(revision)).await {
                    Ok(()) => return Ok(()),
                    Err(NotWritten::Failed(error)) => return Err(error),
                    Err(NotWritten::Conflict) => {}
                }
                revision = match rooms.leases.get(&key).await? {
                    None => return Ok(()),
                    Some(found) => match read_plain::<Lease>(&found.bytes) {
                        Some(found_lease) if found_lease.token == lease.token => found.revision,
                        Some(_) | None => return Err(self.lost(claim)),
                    },
                };
            }
        };
        let ended = ended.await;
        self.lock().held.remove(&claim.job());
        ended.map(|()| acker)
    }

    /// Gives a job back, for another node or for this one.
    async fn give_back(&self, claim: &Claim, delay: Duration) -> Result<(), JobsError> {
        let held = self
            .lock()
            .held
            .get(&claim.job())
            .map(|held| (held.home.clone(), held.entry.clone()));
        let acker = self.end_lease(claim).await?;
        let delay = Some(delay).filter(|delay| !delay.is_zero());
        if let Some(acker) = acker {
            // Waited for: whoever asks next is to get this one, and not the one behind it.
            let answered = acker.double_ack_with(AckKind::Nak(delay)).await;
            answered.map_err(failed("give a job back to the cluster"))?;
        }
        if let Some((home, entry)) = held {
            self.tell_home(&home, entry.id, HomeNews::Passed).await;
            if delay.is_none() {
                self.tell_ready(&entry).await;
            }
        }
        Ok(())
    }

    /// Takes a job out of the queue that need not be run any more.
    async fn finish(&self, claim: Claim) -> Result<(), JobsError> {
        let home = self.lock().held.get(&claim.job()).map(|held| held.home.clone());
        let acker = self.end_lease(&claim).await?;
        // Waited for: a job that is pushed again at once must not meet its old message.
        if let Some(acker) = acker
            && let Err(error) = acker.double_ack().await
        {
            // It comes again, and whoever gets it sees that its job has ended.
            let error = failed::<async_nats::Error>("take a job out of the stream")(error);
            tracing::debug!(job = %claim.job(), error = describe_chain(&error), "the message stays");
        }
        if let Some(home) = home {
            self.tell_home(&home, claim.job(), HomeNews::Done).await;
        }
        Ok(())
    }

    async fn claim_of_cluster(self: &Arc<Self>, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        loop {
            let mut work = std::pin::pin!(self.work.notified());
            // Enlisted before the look, so that news between look and wait are not missed.
            work.as_mut().enable();
            if self.connection.is_up() {
                let (answer, answered) = oneshot::channel();
                let (shared, except) = (Arc::clone(self), except.to_vec());
                // In a task of its own: a message that is on its way when this future is dropped must not be lost.
                tokio::spawn(async move { shared.pull_for(answer, &except).await });
                if let Ok(Some(claim)) = answered.await {
                    return Ok(claim);
                }
            }
            tokio::select! {
                () = work => {}
                () = SystemClock.sleep_until(SystemClock.now() + LOOK_AGAIN) => {}
            }
        }
    }

    async fn pull_for(self: Arc<Self>, answer: oneshot::Sender<Option<Claim>>, except: &[ApiKeyId]) {
        let turn = self.turn.lock().await;
        if answer.is_closed() {
            return;
        }
        let claim = loop {
            let found = match self.left_unclaimed(except) {
                Some(claim) => Some(claim),
                None => self.pull(except).await,
            };
            match found {
                Some(claim) if self.lock().forgotten.contains_key(&claim.job()) => {
                    self.finish_forgotten(claim).await;
                }
                found => break found,
            }
        };
        drop(turn);
        let Err(Some(claim)) = answer.send(claim) else {
            return;
        };
        let forgotten = {
            let mut state = self.lock();
            if state.forgotten.contains_key(&claim.job()) {
                Some(claim)
            } else {
                state.unclaimed.push((claim, SystemClock.now()));
                None
            }
        };
        match forgotten {
            Some(claim) => self.finish_forgotten(claim).await,
            None => self.work.notify_waiters(),
        }
    }

    /// Nobody need run the job that was just claimed.
    async fn finish_forgotten(&self, claim: Claim) {
        let id = claim.job();
        if let Err(error) = self.finish(claim).await {
            // It comes again, and whoever gets it sees that its job has ended.
            tracing::debug!(job = %id, error = describe_chain(&error), "a forgotten job stays in the queue");
        }
    }

    fn left_unclaimed(&self, except: &[ApiKeyId]) -> Option<Claim> {
        self.lock()
            .take_unclaimed(|claim| !except.contains(claim.owner()))
    }
}

#[async_trait]
impl JobQueue for ClusterQueue {
    async fn push(&self, entry: QueueEntry) -> Result<(), JobsError> {
        self.shared.push(entry).await
    }

    async fn claim(&self, lease: Duration, except: &[ApiKeyId]) -> Result<Claim, JobsError> {
        tokio::select! {
            biased;
            claim = self.shared.here.claim(lease, except) => claim,
            claim = self.shared.claim_of_cluster(except) => claim,
        }
    }

    async fn heartbeat(&self, claim: &Claim, lease: Duration) -> Result<(), JobsError> {
        if claim.token() & OF_CLUSTER == 0 {
            return self.shared.here.heartbeat(claim, lease).await;
        }
        let Some(acker) = self.shared.renew(claim).await? else {
            return Ok(());
        };
        let told = acker.ack_with(AckKind::Progress).await;
        told.map_err(failed("tell the broker that a job is at work"))
    }

    async fn release(&self, claim: Claim, delay: Duration) -> Result<(), JobsError> {
        if claim.token() & OF_CLUSTER == 0 {
            return self.shared.here.release(claim, delay).await;
        }
        self.shared.give_back(&claim, delay).await
    }

    async fn complete(&self, claim: Claim) -> Result<(), JobsError> {
        if claim.token() & OF_CLUSTER == 0 {
            return self.shared.here.complete(claim).await;
        }
        self.shared.finish(claim).await
    }

    async fn forget(&self, id: JobId) -> Result<(), JobsError> {
        let shared = &self.shared;
        shared.here.forget(id).await?;
        let unclaimed = {
            let mut state = shared.lock();
            // Its message may be on its way into the stream, or out of it to this node.
            state.forgotten.insert(id, SystemClock.now());
            let unclaimed = state.take_unclaimed(|claim| claim.job() == id);
            if unclaimed.is_none() && state.held.contains_key(&id) {
                return Ok(());
            }
            unclaimed
        };
        shared.ended(id);
        if let Some(claim) = unclaimed {
            return shared.finish(claim).await;
        }
        if shared.connection.is_up() {
            shared.purge(id).await?;
        }
        Ok(())
    }
}
