//! Takes a job of the cluster for this node: asks for messages in the order that the node prefers, and writes its lease.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{AckKind, Message};
use futures::StreamExt as _;
use pentimento_jobs::{Claim, JobsError};
use pentimento_types::{ApiKeyId, Clock as _, JobId, SystemClock, describe_chain};
use rand::Rng as _;

use super::hints::HomeNews;
use super::{Held, OF_CLUSTER, Shared};
use crate::ModelToken;
use crate::affinity::{WaitingModel, made_at};
use crate::bucket::NotWritten;
use crate::envelope::{LARGEST, Lease, Unreadable, WorkMessage, plain, read_plain};
use crate::failures::failed;
use crate::settings::LEASES_OF_SILENCE;
use crate::subjects::{Subjects, job_key};

/// How long this node leaves a job alone that it cannot take now. Others may.
const NOT_NOW: Duration = Duration::from_millis(500);
/// Messages of one checkpoint that are looked at before the next one's turn.
const LOOKS: usize = 8;
/// How long this node does not ask for a job that is in a newer form. It will never know it, and whoever is given a message
/// hides it from those who do.
const NEWER_AGAIN: Duration = Duration::from_secs(60);
/// A message of a newer node that no upgraded node has taken for so long is nobody's.
const NEWEST_WAITS: Duration = Duration::from_secs(24 * 3600);
/// An answer to a request for messages.
const ANSWER: Duration = Duration::from_secs(5);

/// What has become of a message.
enum Looked {
    /// It is this node's.
    Ours(Claim),
    /// Somebody else's, or nobody's.
    Left,
}

impl Shared {
    /// A job that waits now, or None.
    pub(super) async fn pull(&self, except: &[ApiKeyId]) -> Option<Claim> {
        for token in self.affinity.order(self.waiting()) {
            match self.pull_of(&token, except).await {
                Ok(Some(claim)) => return Some(claim),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(
                        error = describe_chain(&error),
                        "no job can be got from the cluster"
                    );
                    self.lock().consumers.remove(&token);
                    self.make_consumers_again();
                    self.connection.distrust_rooms();
                    // A broker that does not answer is not asked for each checkpoint.
                    if self.connection.rooms().await.is_err() {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn waiting(&self) -> Vec<WaitingModel> {
        let state = self.lock();
        let waiting = state.waiting.iter().filter_map(|(token, jobs)| {
            let oldest = jobs.iter().find(|job| !state.newer.contains_key(job))?;
            Some(WaitingModel {
                token: token.clone(),
                model: state.models.get(token).cloned(),
                oldest: made_at(*oldest),
            })
        });
        waiting.collect()
    }

    async fn pull_of(&self, token: &ModelToken, except: &[ApiKeyId]) -> Result<Option<Claim>, JobsError> {
        let Some(consumer) = self.consumer(token).await? else {
            self.lock().waiting.remove(token);
            return Ok(None);
        };
        for _ in 0..LOOKS {
            // What is told of while the broker is asked is not forgotten with its answer.
            let known = self.lock().waiting.get(token).cloned().unwrap_or_default();
            let Some(message) = fetch(&consumer).await? else {
                let mut state = self.lock();
                if let Some(waiting) = state.waiting.get_mut(token) {
                    waiting.retain(|job| !known.contains(job));
                }
                state.waiting.retain(|_, jobs| !jobs.is_empty());
                return Ok(None);
            };
            if let Looked::Ours(claim) = self.look_at(message, except).await? {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// None where nobody has put a job of the checkpoint out yet.
    async fn consumer(&self, token: &ModelToken) -> Result<Option<PullConsumer>, JobsError> {
        if let Some(consumer) = self.lock().consumers.get(token) {
            return Ok(Some(consumer.clone()));
        }
        let rooms = self.connection.rooms().await?;
        let name = Subjects::consumer(token);
        let jetstream = self.connection.jetstream();
        let subjects = self.connection.subjects();
        let stream = subjects.work_stream(subjects.stream_of(token));
        let found = jetstream
            .get_consumer_from_stream(name.as_str(), stream.as_str())
            .await;
        drop(rooms);
        match found {
            Ok(consumer) => {
                self.lock()
                    .consumers
                    .insert(token.clone(), PullConsumer::clone(&consumer));
                Ok(Some(consumer))
            }
            Err(error) if matches!(error.kind(), ConsumerErrorKind::JetStream(_)) => {
                tracing::debug!(token = token.as_str(), %error, "no consumer yet");
                Ok(None)
            }
            Err(error) => Err(failed("ask for jobs of the cluster")(error)),
        }
    }

    async fn look_at(&self, message: Message, except: &[ApiKeyId]) -> Result<Looked, JobsError> {
        let what = "look at a job of the cluster";
        let Some((token, id)) = self.connection.subjects().parse_work(&message.subject) else {
            self.bury(&message, "its subject names no job").await?;
            return Ok(Looked::Left);
        };
        let work = match WorkMessage::decode(&message.payload, id) {
            Ok(work) => work,
            Err(newer @ Unreadable::Newer { .. }) => {
                let age = message.info().map_err(failed(what))?.published.unix_timestamp();
                let waits = Duration::from_secs(now_in_seconds().saturating_sub(age).unsigned_abs());
                if waits > NEWEST_WAITS {
                    self.bury(&message, &newer.to_string()).await?;
                } else {
                    let again = SystemClock.now() + NEWER_AGAIN;
                    // A busy node is given it with each job that it asks for.
                    if self.lock().newer.insert(id, again).is_none() {
                        tracing::warn!(job = %id, error = %newer, "a job is left for an upgraded node");
                    }
                    self.leave(&message, NOT_NOW).await?;
                }
                return Ok(Looked::Left);
            }
            Err(error) => {
                self.bury(&message, &describe_chain(&error)).await?;
                return Ok(Looked::Left);
            }
        };
        if self.lock().forgotten.contains_key(&id) {
            let done = message.double_ack_with(AckKind::Term).await;
            done.map_err(failed("take a job out of the queue"))?;
            return Ok(Looked::Left);
        }
        let entry = work.entry();
        self.lock().learn(&entry.model);
        if except.contains(&entry.owner) || !self.affinity.takes(&entry) {
            self.leave(&message, NOT_NOW).await?;
            self.tell_home(&work.home, id, HomeNews::Passed).await;
            return Ok(Looked::Left);
        }
        if self.is_asked_once_more(id) {
            self.leave(&message, self.connection.settings().lease / 2).await?;
            return Ok(Looked::Left);
        }
        let sequence = message.info().map_err(failed(what))?.stream_sequence;
        let lease = Lease {
            node: self.node.clone(),
            token: OF_CLUSTER | rand::rng().random::<u64>(),
            sequence,
        };
        let Some(revision) = self.write_lease(id, &lease).await? else {
            self.leave(&message, self.connection.settings().lease / 2).await?;
            return Ok(Looked::Left);
        };
        let claim = Claim::new(id, entry.owner.clone(), lease.token);
        let home = work.home.clone();
        let (_, acker) = message.split();
        {
            let mut state = self.lock();
            if let Some(waiting) = state.waiting.get_mut(&token) {
                waiting.remove(&id);
            }
            state.waiting.retain(|_, jobs| !jobs.is_empty());
            let held = Held {
                token: lease.token,
                entry,
                home: home.clone(),
                acker: Arc::new(acker),
                revision,
                sequence,
                is_last_call: false,
            };
            state.held.insert(id, held);
        }
        self.tell_home(&home, id, HomeNews::Taken).await;
        Ok(Looked::Ours(claim))
    }

    /// The message of a job came again that this process has: its worker is silent, or the whole process was stopped for a
    /// while, and its worker only needs to be heard.
    fn is_asked_once_more(&self, id: JobId) -> bool {
        let mut state = self.lock();
        let Some(held) = state.held.get_mut(&id) else {
            return false;
        };
        !std::mem::replace(&mut held.is_last_call, true)
    }

    /// Writes our lease on a job: where there is none, over the one of the same message, which the broker would not have sent
    /// again if its holder were heard, and over one that has not changed for as long. None where somebody has the job.
    async fn write_lease(&self, id: JobId, ours: &Lease) -> Result<Option<u64>, JobsError> {
        let rooms = self.connection.rooms().await?;
        let key = job_key(id);
        match rooms.leases.create(&key, plain(ours)).await {
            Ok(revision) => {
                self.lock().suspects.remove(&id);
                return Ok(Some(revision));
            }
            Err(NotWritten::Failed(error)) => return Err(error),
            Err(NotWritten::Conflict) => {}
        }
        let Some(found) = rooms.leases.get(&key).await? else {
            // Its job has just ended.
            return Ok(None);
        };
        let is_same_message = match read_plain::<Lease>(&found.bytes) {
            Some(lease) => lease.sequence == ours.sequence,
            // Nobody's.
            None => true,
        };
        if !is_same_message && !self.has_not_changed(id, found.revision) {
            return Ok(None);
        }
        match rooms.leases.update(&key, plain(ours), found.revision).await {
            Ok(revision) => {
                self.lock().suspects.remove(&id);
                Ok(Some(revision))
            }
            Err(NotWritten::Conflict) => Ok(None),
            Err(NotWritten::Failed(error)) => Err(error),
        }
    }

    /// Whether a lease has stood as it is for longer than a holder may be silent.
    fn has_not_changed(&self, id: JobId, revision: u64) -> bool {
        let now = SystemClock.now();
        let mut state = self.lock();
        let suspect = state.suspects.entry(id).or_insert((revision, now));
        if suspect.0 != revision {
            *suspect = (revision, now);
        }
        now.saturating_duration_since(suspect.1) >= self.connection.settings().lease * LEASES_OF_SILENCE
    }

    async fn leave(&self, message: &Message, delay: Duration) -> Result<(), JobsError> {
        let left = message.ack_with(AckKind::Nak(Some(delay))).await;
        left.map_err(failed("leave a job to other nodes"))
    }

    /// Takes a message out that nobody can use, and keeps it with the reason: as much of it as our own messages have at most,
    /// since one that is as large as the broker allows has no room for the reason.
    async fn bury(&self, message: &Message, reason: &str) -> Result<(), JobsError> {
        let what = "set a message aside that cannot be used";
        tracing::error!(subject = %message.subject, reason, "a message in the cluster's queue cannot be used; it is set aside");
        let bytes = message.payload.len();
        let dead = PublishMessage::build()
            .payload(message.payload.slice(..bytes.min(LARGEST)))
            .header("Pentimento-Bytes", bytes.to_string().as_str())
            // Of a single line, or it would be no header.
            .header("Pentimento-Reason", reason.replace(['\r', '\n'], " ").as_str())
            .header("Pentimento-Subject", message.subject.as_str());
        let subject = self.connection.subjects().dead_work();
        let sent = self.connection.jetstream().send_publish(subject, dead).await;
        sent.map_err(failed(what))?.await.map_err(failed(what))?;
        message.ack_with(AckKind::Term).await.map_err(failed(what))
    }
}

/// One message, if one is there.
async fn fetch(consumer: &PullConsumer) -> Result<Option<Message>, JobsError> {
    let what = "ask for jobs of the cluster";
    let fetched = async {
        let mut messages = consumer
            .fetch()
            .max_messages(1)
            .messages()
            .await
            .map_err(failed(what))?;
        messages.next().await.transpose().map_err(failed(what))
    };
    let fetched = tokio::time::timeout(ANSWER, fetched).await;
    fetched.map_err(failed(what))?
}

fn now_in_seconds() -> i64 {
    let since = SystemClock.wall().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
