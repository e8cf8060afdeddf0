//! Nodes tell each other that they are there, what they have, and how far the jobs are that they run.
//!
//! All of it is hearsay that comes again in seconds: it is kept in the broker's memory, and nothing is lost with it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use async_nats::jetstream::stream::StorageType;
use async_trait::async_trait;
use futures::StreamExt as _;
use pentimento_jobs::JobsError;
use pentimento_types::{Clock as _, JobId, Progress, SystemClock, describe_chain};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::NodeId;
use crate::connection::Connection;
use crate::envelope::{LARGEST, plain, read_plain};
use crate::failures::{away, failed};
use crate::members::{Announcement, Member, Members, SILENCE};
use crate::tasks::Tasks;

/// Between two words of a node: three may be lost before it is taken for gone.
const EVERY: Duration = Duration::from_secs(3);
/// When nothing has come back of what this node says for so long, others are not heard either, whatever the line looks like:
/// before the first of them is taken for gone.
const LAPSE: Duration = Duration::from_secs(7);
/// After a broker that did not listen.
const PAUSE: Duration = Duration::from_secs(1);
/// Words about progress that wait for the broker; more are dropped, since newer ones come.
const WAITING_WORDS: usize = 256;
/// Nodes of another number of streams that are told of.
const MOST_ODD: usize = 100;
/// Bytes of the longest word about progress.
const LONGEST_WORD: usize = 256;

/// What a node says of itself, asked every few seconds.
#[async_trait]
pub trait Announcer: Send + Sync + std::fmt::Debug {
    /// As things stand now.
    async fn announcement(&self) -> Announcement;

    /// How far a job is that runs on another node.
    fn heard_progress(&self, job: JobId, attempt: u32, progress: Progress);
}

/// A node among the others. It is told of before it speaks itself.
#[derive(Debug)]
pub struct Presence {
    shared: Arc<Shared>,
    tasks: Tasks,
}

#[derive(Debug)]
struct Shared {
    node: NodeId,
    connection: Connection,
    members: Mutex<Members>,
    words: mpsc::Sender<Word>,
    /// Which process this is: another one under the same name has a copy of this node's folder.
    start: u64,
    /// Whether the others would be heard by now: what this node says comes back, and a worker has spoken or has had the time
    /// to. After a broker that was away the word of a node that runs no jobs is often the first.
    is_heard: AtomicBool,
    /// When a word of this node came back.
    own_word: Mutex<Option<Instant>>,
}

/// What a node says, as it is written. What may be missing is of an older version.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    #[serde(flatten)]
    says: Announcement,
    #[serde(default)]
    start: Option<u64>,
    /// Over how many streams it spreads jobs.
    #[serde(default)]
    streams: Option<u32>,
}

/// How far a job is.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    job: JobId,
    attempt: u32,
    progress: Progress,
}

impl Presence {
    /// Begins to listen who is there.
    #[must_use]
    pub fn new(node: NodeId, connection: Connection) -> Self {
        let (words, to_tell) = mpsc::channel(WAITING_WORDS);
        let shared = Arc::new(Shared {
            node,
            connection,
            members: Mutex::default(),
            words,
            start: rand::random(),
            is_heard: AtomicBool::new(false),
            own_word: Mutex::default(),
        });
        let tasks = Tasks::default();
        tasks.spawn(hear(Arc::clone(&shared)));
        tasks.spawn(tell_progress(shared.connection.clone(), to_tell));
        Self { shared, tasks }
    }

    /// Begins to speak, and to listen to progress. When it returns, this node knows of itself.
    pub async fn announce(&self, announcer: Arc<dyn Announcer>) {
        let says = announcer.announcement().await;
        let node = self.shared.node.clone();
        self.shared.members().note(node, says, SystemClock.now());
        self.tasks
            .spawn(announce(Arc::clone(&self.shared), Arc::clone(&announcer)));
        self.tasks
            .spawn(hear_progress(self.shared.connection.clone(), announcer));
    }

    /// Those who are there, this node first.
    #[must_use]
    pub fn live(&self) -> Vec<Member> {
        let mut live = self.shared.members().live(SystemClock.now());
        live.sort_by_key(|member| member.node != self.shared.node);
        live
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.node
    }

    /// Whether others can be heard now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connection.is_up()
            && self.shared.is_heard.load(Ordering::Relaxed)
            && self.shared.hears_itself(SystemClock.now())
    }

    /// Tells the others how far a job is. Never waits.
    pub fn tell_progress(&self, job: JobId, attempt: u32, progress: Progress) {
        // Where the line is full, the next word says it as well.
        let _ = self.shared.words.try_send(Word {
            job,
            attempt,
            progress,
        });
    }

    /// Says that this node goes. Without it the others find out after a while.
    pub async fn leave(&self) {
        self.shared.members().leave(&self.shared.node);
        if let Ok(bucket) = bucket(&self.shared.connection).await {
            let _ = bucket.delete(self.shared.node.as_str()).await;
        }
    }
}

impl Shared {
    fn hears_itself(&self, now: Instant) -> bool {
        let last = *self.own_word.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| now.saturating_duration_since(last) < LAPSE)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        // Nothing that holds the lock can leave the view half changed.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bucket of all nodes, made where it is missing.
async fn bucket(connection: &Connection) -> Result<kv::Store, JobsError> {
    if !connection.is_up() {
        return Err(away());
    }
    let name = connection.subjects().nodes_bucket();
    let kept = (SILENCE, StorageType::Memory);
    connection
        .make_bucket(name, "who is in the cluster of pentimento", kept)
        .await
}

async fn announce(shared: Arc<Shared>, announcer: Arc<dyn Announcer>) {
    let mut store = None;
    loop {
        let says = announcer.announcement().await;
        shared
            .members()
            .note(shared.node.clone(), says.clone(), SystemClock.now());
        if let Err(error) = put(&shared, &mut store, says).await {
            store = None;
            tracing::debug!(
                error = describe_chain(&error),
                "the cluster was not told that this node is there"
            );
        }
        SystemClock.sleep_until(SystemClock.now() + EVERY).await;
    }
}

async fn put(shared: &Shared, store: &mut Option<kv::Store>, says: Announcement) -> Result<(), JobsError> {
    let made = match store {
        Some(made) if shared.connection.is_up() => made,
        Some(_) => return Err(away()),
        None => store.insert(bucket(&shared.connection).await?),
    };
    let told = made
        .put(
            shared.node.as_str(),
            within_bound(says, (shared.start, shared.connection.settings().streams)),
        )
        .await;
    told.map(drop)
        .map_err(failed("tell the cluster that this node is there"))
}

/// A catalogue of thousands is not told, which counts as having all of it.
fn within_bound(says: Announcement, (start, streams): (u64, u32)) -> bytes::Bytes {
    let mut told = Told {
        says,
        start: Some(start),
        streams: Some(streams),
    };
    let whole = plain(&told);
    if whole.len() <= LARGEST {
        return whole;
    }
    told.says.models = None;
    plain(&told)
}

async fn hear(shared: Arc<Shared>) {
    let mut was_away = false;
    loop {
        let heard = hear_until_broken(&shared, was_away).await;
        shared.is_heard.store(false, Ordering::Relaxed);
        if let Err(error) = heard {
            was_away = true;
            tracing::debug!(
                error = describe_chain(&error),
                "the nodes of the cluster are not heard"
            );
        }
        SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
    }
}

async fn hear_until_broken(shared: &Shared, was_away: bool) -> Result<(), JobsError> {
    let what = "listen to the nodes of the cluster";
    let mut epoch = shared.connection.epochs();
    epoch.mark_unchanged();
    let store = bucket(&shared.connection).await?;
    let mut watch = store.watch_with_history(">").await.map_err(failed(what))?;
    // On the first line of this process the broker tells at once who is there. Later it may have lost that.
    let is_whole = !was_away && *epoch.borrow() <= 1;
    let mut hearing = Hearing::since(SystemClock.now(), is_whole);
    loop {
        let entry = tokio::select! {
            entry = watch.next() => entry,
            // A broker that was started anew knows nothing of this watch.
            Ok(()) = epoch.changed() => return Ok(()),
        };
        let Some(entry) = entry else { return Ok(()) };
        let entry = entry.map_err(failed(what))?;
        let Ok(node) = entry.key.parse::<NodeId>() else {
            continue;
        };
        match entry.operation {
            kv::Operation::Put if entry.value.len() <= LARGEST => {
                let Some(Told { says, start, streams }) = read_plain(&entry.value) else {
                    continue;
                };
                let is_ours = node == shared.node && start == Some(shared.start);
                if node == shared.node && !is_ours && hearing.finds_twin() {
                    tracing::error!(
                        %node,
                        "another process of the cluster has this one's name, so that each takes the other's jobs for its own: \
                         a data folder was copied; start the copy with an empty one"
                    );
                }
                if node == shared.node && !is_ours {
                    continue;
                }
                let (ours, theirs) = (shared.connection.settings().streams, streams.unwrap_or(1));
                if ours != theirs && hearing.finds_odd(&node) {
                    tracing::error!(
                        %node,
                        "this machine of the cluster spreads jobs over {theirs} streams and this one over {ours}, so that each \
                         misses jobs of the other: give both the same cluster_streams"
                    );
                }
                let now = SystemClock.now();
                let is_heard = hearing.note(is_ours, says.works, now);
                shared.is_heard.store(is_heard, Ordering::Relaxed);
                if is_ours {
                    *shared.own_word.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                }
                shared.members().note(node, says, now);
            }
            kv::Operation::Put => {}
            kv::Operation::Delete | kv::Operation::Purge => shared.members().leave(&node),
        }
    }
}

/// What was heard since the bucket is followed.
#[derive(Debug)]
struct Hearing {
    since: Instant,
    is_whole: bool,
    /// The latest word of this node.
    ours: Option<Instant>,
    worker: bool,
    twin: bool,
    /// Nodes with another number of streams that were told of.
    odd: BTreeSet<NodeId>,
}

impl Hearing {
    /// `is_whole`: what the broker has of the others is all that there is.
    fn since(since: Instant, is_whole: bool) -> Self {
        Self {
            since,
            is_whole,
            ours: None,
            worker: false,
            twin: false,
            odd: BTreeSet::new(),
        }
    }

    /// A node has another number of streams; says whether to tell of it.
    fn finds_odd(&mut self, node: &NodeId) -> bool {
        self.odd.len() < MOST_ODD && self.odd.insert(node.clone())
    }

    /// Somebody else has spoken under this node's name; says whether to tell of it. What an earlier life has said is there
    /// before this one's own words, and never after them.
    fn finds_twin(&mut self) -> bool {
        self.ours.is_some() && !std::mem::replace(&mut self.twin, true)
    }

    /// A word has come; says whether the silence of somebody who is not heard means anything now.
    fn note(&mut self, is_ours: bool, works: bool, now: Instant) -> bool {
        if is_ours {
            let lapsed = |last: Instant| now.saturating_duration_since(last) >= LAPSE;
            if self.ours.is_some_and(lapsed) {
                // Nothing came for a while, and workers that were not heard meanwhile are about to speak.
                (self.since, self.is_whole, self.worker) = (now, false, false);
            }
            self.ours = Some(now);
        }
        self.worker |= works && !is_ours;
        self.ours.is_some()
            && (self.is_whole || self.worker || now.saturating_duration_since(self.since) >= SILENCE)
    }
}

async fn tell_progress(connection: Connection, mut words: mpsc::Receiver<Word>) {
    while let Some(word) = words.recv().await {
        if connection.is_up() {
            let subject = connection.subjects().progress(word.job);
            // Who does not hear it hears the next one.
            let _ = connection.client().publish(subject, plain(&word)).await;
        }
    }
}

async fn hear_progress(connection: Connection, announcer: Arc<dyn Announcer>) {
    loop {
        // The client subscribes again by itself when it connects again.
        if let Ok(mut words) = connection
            .client()
            .subscribe(connection.subjects().all_progress())
            .await
        {
            while let Some(message) = words.next().await {
                if message.payload.len() > LONGEST_WORD {
                    continue;
                }
                if let Some(Word {
                    job,
                    attempt,
                    progress,
                }) = read_plain(&message.payload)
                {
                    announcer.heard_progress(job, attempt, progress);
                }
            }
        }
        SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_from_silence_before_workers_have_had_the_time_to_speak() {
        let start = SystemClock.now();
        let mut first = Hearing::since(start, true);
        assert!(first.note(true, false, start), "the broker has told of all");
        let mut front = Hearing::since(start, false);
        assert!(!front.note(true, false, start), "workers are about to speak");
        for words in 1..4 {
            assert!(!front.note(true, false, start + words * EVERY));
        }
        assert!(front.note(true, false, start + SILENCE), "there is none");
        let mut among = Hearing::since(start, false);
        assert!(
            !among.note(false, true, start),
            "what this node says may not arrive"
        );
        assert!(among.note(true, false, start));
    }

    #[test]
    fn after_a_silence_in_which_this_node_did_not_hear_itself_workers_get_their_time_again() {
        let start = SystemClock.now();
        let mut hearing = Hearing::since(start, true);
        hearing.note(false, true, start);
        assert!(hearing.note(true, false, start + EVERY), "as ever");
        let back = start + EVERY + LAPSE;
        assert!(!hearing.note(true, false, back), "a worker may be gone from view");
        assert!(hearing.note(false, true, back + EVERY));
    }

    #[test]
    fn a_word_is_short_and_a_catalogue_of_thousands_is_not_told() {
        let word = Word {
            job: JobId::from_u128(u128::MAX),
            attempt: u32::MAX,
            progress: Progress {
                done: u32::MAX,
                total: u32::MAX,
            },
        };
        assert!(plain(&word).len() <= LONGEST_WORD);
        let says = Announcement {
            models: Some((0..10_000).map(|k| format!("a checkpoint {k}")).collect()),
            ..Announcement::default()
        };
        let told = within_bound(says, (u64::MAX, u32::MAX));
        assert!(told.len() <= LARGEST);
        let told = read_plain::<Told>(&told).unwrap();
        assert_eq!((told.says.models, told.start), (None, Some(u64::MAX)));
        // As an older version has it.
        let old = read_plain::<Told>(&plain(&Announcement::default())).unwrap();
        assert_eq!(old.start, None);
    }

    #[test]
    fn a_twin_is_told_of_once_and_an_earlier_life_is_none() {
        let start = SystemClock.now();
        let mut hearing = Hearing::since(start, true);
        assert!(!hearing.finds_twin(), "what this node said before its start");
        hearing.note(true, false, start);
        assert!(hearing.finds_twin());
        assert!(!hearing.finds_twin());
        let other: NodeId = "b".parse().unwrap();
        assert!(hearing.finds_odd(&other));
        assert!(!hearing.finds_odd(&other), "once");
    }
}
