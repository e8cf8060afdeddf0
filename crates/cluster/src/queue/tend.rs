//! What is done from time to time, so that no message that went missing holds a job up for long: looks for work of which nobody
//! has told, gives back what was claimed for nobody, and finds jobs that the broker has lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::TryStreamExt as _;
use pentimento_jobs::{Claim, JobsError, QueueEntry};
use pentimento_types::{Clock as _, JobId, SystemClock, describe_chain};
use rand::Rng as _;

use super::Shared;
use crate::ModelToken;
use crate::failures::failed;
use crate::settings::LEASES_OF_SILENCE;
use crate::subjects::job_key;

/// Between two rounds, on average.
const ROUND: Duration = Duration::from_secs(1);
/// How long a job may be claimed for nobody.
const UNCLAIMED: Duration = Duration::from_secs(1);
/// The list of all subjects is asked for after at least so long, and after as many milliseconds as it had entries.
const LIST_AGAIN: Duration = Duration::from_secs(2);
/// Between two looks where the jobs are that this node has put out.
const LOOK_FOR_JOBS: Duration = Duration::from_secs(5);

/// Longer than a message is on its way.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Runs for as long as the queue lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut next_list = SystemClock.now();
    let mut next_look = next_list + LOOK_FOR_JOBS;
    loop {
        shared.give_back_unclaimed().await;
        shared.forget_suspects();
        shared.forget_the_forgotten();
        shared.forget_the_newer();
        let now = SystemClock.now();
        if shared.connection.is_up() && now >= next_list {
            let entries = match shared.list_waiting().await {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::debug!(
                        error = describe_chain(&error),
                        "the cluster's queue cannot be listed"
                    );
                    shared.connection.distrust_rooms();
                    0
                }
            };
            next_list = now + LIST_AGAIN.max(Duration::from_millis(entries as u64));
        }
        if shared.connection.is_up() && now >= next_look {
            if let Err(error) = shared.look_for_jobs().await {
                tracing::debug!(error = describe_chain(&error), "jobs cannot be looked for");
            }
            next_look = now + LOOK_FOR_JOBS;
        }
        // By chance: of two nodes that look in step, one can always come while the other has just hidden a job that it leaves.
        let pause = ROUND.mul_f64(rand::rng().random_range(0.5..1.5));
        SystemClock.sleep_until(SystemClock.now() + pause).await;
    }
}

impl Shared {
    async fn give_back_unclaimed(&self) {
        let now = SystemClock.now();
        let old: Vec<(Claim, Instant)> = {
            let unclaimed = &mut self.lock().unclaimed;
            let is_old =
                |(_, since): &mut (Claim, Instant)| now.saturating_duration_since(*since) >= UNCLAIMED;
            unclaimed.extract_if(.., is_old).collect()
        };
        for (claim, _) in old {
            if let Err(error) = self.give_back(&claim, Duration::ZERO).await {
                // The broker gives it to another after a while.
                tracing::debug!(job = %claim.job(), error = describe_chain(&error), "not given back");
            }
        }
    }

    fn forget_the_forgotten(&self) {
        let now = SystemClock.now();
        let forgotten = &mut self.lock().forgotten;
        forgotten.retain(|_, since| now.saturating_duration_since(*since) < FORGOTTEN);
    }

    /// Jobs in a newer form may be asked for again.
    fn forget_the_newer(&self) {
        let now = SystemClock.now();
        self.lock().newer.retain(|_, until| now < *until);
    }

    /// Leases that were in the way long ago.
    fn forget_suspects(&self) {
        let now = SystemClock.now();
        let old =
            self.connection.settings().lease * (LEASES_OF_SILENCE * LEASES_OF_SILENCE * LEASES_OF_SILENCE);
        let suspects = &mut self.lock().suspects;
        suspects.retain(|_, (_, since)| now.saturating_duration_since(*since) < old);
    }

    /// Notes what is in the stream, and says how much that is. What others have is in it as well: asking for it costs a
    /// message and brings nothing.
    async fn list_waiting(&self) -> Result<usize, JobsError> {
        let what = "list the cluster's queue";
        let rooms = self.connection.rooms().await?;
        let subjects = self.connection.subjects();
        let mut found: Vec<(ModelToken, JobId)> = Vec::new();
        for (number, stream) in &rooms.work {
            let listed = stream.info_with_subjects(subjects.all_work(*number)).await;
            let mut listed = listed.map_err(failed(what))?;
            while let Some((subject, _)) = listed.try_next().await.map_err(failed(what))? {
                match subjects.parse_work(&subject) {
                    Some(work) => found.push(work),
                    // Somebody else's message: whoever asks for its checkpoint's jobs sets it aside.
                    None => tracing::debug!(subject, "an odd subject in the cluster's queue"),
                }
            }
        }
        let entries = found.len();
        {
            let mut state = self.lock();
            for (token, job) in found {
                // What this node has is among them: its own worker may have fallen silent.
                state.waiting.entry(token).or_default().insert(job);
            }
        }
        self.work.notify_waiters();
        Ok(entries)
    }

    /// Jobs of this node that are neither in the stream nor in anybody's hands are put out again: the broker has lost them, or
    /// with them what somebody has said of them.
    async fn look_for_jobs(&self) -> Result<(), JobsError> {
        let doubtful = self.lock().lines.in_doubt(SystemClock.now());
        for entry in doubtful {
            self.look_for(&entry).await?;
        }
        Ok(())
    }

    async fn look_for(&self, entry: &QueueEntry) -> Result<(), JobsError> {
        let what = "look for a job in the cluster's queue";
        let rooms = self.connection.rooms().await?;
        let (subjects, token) = (self.connection.subjects(), ModelToken::of(&entry.model));
        let subject = subjects.work(&token, entry.id);
        let stream = rooms.work_of(subjects.stream_of(&token))?;
        let is_there = match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => false,
            Err(error) => return Err(failed(what)(error)),
        };
        let lease = rooms.leases.get(&job_key(entry.id)).await?;
        let sign = lease.map_or(0, |lease| lease.revision);
        let now = SystemClock.now();
        if sign != 0 {
            self.lock().lines.taken(entry.id, now);
            self.feed.notify_one();
        }
        if is_there {
            return Ok(());
        }
        let silence = self.connection.settings().lease * LEASES_OF_SILENCE;
        let mut state = self.lock();
        if state.lines.is_lost(entry.id, sign, (now, silence)) {
            tracing::warn!(job = %entry.id, "the broker has lost a job of this node; it is put out again");
            state.lines.remove(entry.id);
            state.lines.put_back(entry.clone());
            drop(state);
            self.feed.notify_one();
        }
        Ok(())
    }
}
