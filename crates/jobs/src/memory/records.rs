//! The records, and which of them are forgotten.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, JobState, WebhookId};
use tokio::sync::watch;

use super::{MemoryJobs, Record, State};
use crate::{
    Inserted, JobCounts, JobFilter, JobLimits, JobPlace, JobStore, JobsError, KEY_LIFE, OutboxEntry,
    OutboxState, Transition, key_stands, known_request,
};

impl State {
    fn record(&mut self, id: JobId) -> Result<&mut Record, JobsError> {
        self.jobs.get_mut(&id).ok_or(JobsError::NotFound { id })
    }

    /// The job for which this key stands.
    fn of_key(&self, owner: &ApiKeyId, key: &str, now: SystemTime) -> Option<&Arc<Job>> {
        let id = self.keys.get(&(owner.clone(), key.to_owned()))?;
        let job = &self.jobs.get(id)?.job;
        key_stands(job, now).then_some(job)
    }

    /// Keeps an ended job, for which others are forgotten where there are too many of them, or too large ones: the one that
    /// ended first of those whose webhooks are not under way, and when all are, the one that ended first.
    fn remember(&mut self, job: &Job, limits: JobLimits) {
        let bytes = size_of_record(job);
        self.finished.push_back((job.id, bytes));
        self.finished_bytes += bytes;
        while self.finished.len() > limits.finished || self.finished_bytes > limits.finished_bytes {
            let ended = self.finished.iter();
            let told = ended
                .enumerate()
                .find(|(_, (id, _))| !self.has_pending_webhook(*id));
            let at = told.map_or(0, |(at, _)| at);
            let Some((oldest, bytes)) = self.finished.remove(at) else {
                break;
            };
            self.finished_bytes -= bytes;
            self.forget_record(oldest);
        }
    }

    /// Takes the ended jobs that are not in the table any more out of the account.
    fn forget_missing(&mut self) {
        let Self {
            finished,
            finished_bytes,
            jobs,
            ..
        } = self;
        finished.retain(|(id, bytes)| {
            let kept = jobs.contains_key(id);
            *finished_bytes -= if kept { 0 } else { *bytes };
            kept
        });
    }

    fn has_pending_webhook(&self, id: JobId) -> bool {
        let webhook = self.outbox.get(&WebhookId::of(id));
        webhook.is_some_and(|webhook| webhook.state == OutboxState::Pending)
    }

    /// Everything that leads to a job, and the job.
    fn forget_record(&mut self, id: JobId) {
        self.outbox.remove(&WebhookId::of(id));
        self.leases.end(WebhookId::of(id));
        let Some(record) = self.jobs.remove(&id) else {
            return;
        };
        let job = &record.job;
        if let Some(number) = job.dialect.number {
            self.numbers.remove(&(job.dialect.name.clone(), number));
        }
        self.forget_key(job);
    }

    fn forget_key(&mut self, job: &Job) {
        let Some(request) = &job.idempotency else { return };
        let key = (job.owner.clone(), request.key.clone());
        // A later job may have it by now.
        if self.keys.get(&key) == Some(&job.id) {
            self.keys.remove(&key);
        }
    }
}

/// About what a record takes: its texts, which are all that a caller can make large, and what is beside them.
fn size_of_record(job: &Job) -> u64 {
    /// Counts what is written.
    struct Counter(u64);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    const BESIDE: u64 = 1024;
    let mut counter = Counter(BESIDE);
    // A record can always be written; if not, it counts as far as it can.
    let _ = serde_json::to_writer(&mut counter, job);
    // The address stands in the outbox too.
    counter.0 + job.delivery.webhook.as_ref().map_or(0, |url| url.len() as u64)
}

#[async_trait]
impl JobStore for MemoryJobs {
    fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        self.table.places.reserve_within(owner, most)
    }

    async fn insert(&self, job: Job, place: JobPlace) -> Result<Inserted, JobsError> {
        let now = self.table.ages.now(KEY_LIFE);
        let mut state = self.lock();
        if state.jobs.contains_key(&job.id) {
            return Err(JobsError::Duplicate { id: job.id });
        }
        if let Some(request) = &job.idempotency
            && let Some(first) = state.of_key(&job.owner, &request.key, now)
        {
            return known_request(first, request).map(Inserted::Known);
        }
        let number = job
            .dialect
            .number
            .map(|number| (job.dialect.name.clone(), number));
        if number
            .as_ref()
            .is_some_and(|number| state.numbers.contains_key(number))
        {
            return Err(JobsError::NumberTaken);
        }
        state.numbers.extend(number.map(|number| (number, job.id)));
        let key = job.idempotency.as_ref();
        let key = key.map(|request| (job.owner.clone(), request.key.clone()));
        state.keys.extend(key.map(|key| (key, job.id)));
        state.unfinished += 1;
        let (ended, _) = watch::channel(None);
        let (job, place) = (Arc::new(job), Some(place));
        state.jobs.insert(job.id, Record { job, place, ended });
        Ok(Inserted::New)
    }

    async fn get(&self, id: JobId) -> Result<Option<Job>, JobsError> {
        let found = self.lock().jobs.get(&id).map(|record| Arc::clone(&record.job));
        Ok(found.map(Arc::unwrap_or_clone))
    }

    async fn find_by_number(&self, dialect: &str, number: u64) -> Result<Option<Job>, JobsError> {
        let state = self.lock();
        let id = state.numbers.get(&(dialect.to_owned(), number));
        let found = id.and_then(|id| state.jobs.get(id));
        let job = found.map(|record| Arc::clone(&record.job));
        drop(state);
        Ok(job.map(Arc::unwrap_or_clone))
    }

    async fn find_by_key(&self, owner: &ApiKeyId, key: &str) -> Result<Option<Job>, JobsError> {
        let now = self.table.ages.now(KEY_LIFE);
        let found = self.lock().of_key(owner, key, now).map(Arc::clone);
        Ok(found.map(Arc::unwrap_or_clone))
    }

    async fn transition(&self, id: JobId, transition: Transition) -> Result<Job, JobsError> {
        let now = self.table.clock.wall();
        let mut state = self.lock();
        let record = state.record(id)?;
        let before = Arc::clone(&record.job);
        let mut job = Job::clone(&before);
        transition.apply(&mut job, now)?;
        let job = Arc::new(job);
        record.job = Arc::clone(&job);
        if job.state.is_final() {
            record.place = None;
            record.ended.send_replace(Some(Arc::clone(&job)));
        }
        state.running -= usize::from(before.state == JobState::Running);
        state.running += usize::from(job.state == JobState::Running);
        if job.idempotency.is_none() {
            state.forget_key(&before);
        }
        if job.state.is_final() {
            state.unfinished -= 1;
            if let Some(webhook) = OutboxEntry::of(&job, now) {
                state.outbox.insert(webhook.id, webhook);
                self.table.mail.notify_waiters();
            }
            state.remember(&job, self.table.limits);
        }
        drop(state);
        drop(before);
        Ok(Arc::unwrap_or_clone(job))
    }

    async fn wait_until_ended(&self, id: JobId) -> Result<Job, JobsError> {
        let mut ended = self.lock().record(id)?.ended.subscribe();
        // An error means that the record is gone without an end, which only a dropped table can bring about.
        let job = ended
            .wait_for(Option::is_some)
            .await
            .map_err(|_| JobsError::NotFound { id })?;
        job.as_deref().cloned().ok_or(JobsError::NotFound { id })
    }

    async fn list(&self, filter: &JobFilter) -> Result<Vec<Job>, JobsError> {
        let state = self.lock();
        let records = state.jobs.range(filter.range());
        Ok(filter.choose(records.map(|(_, record)| record.job.as_ref())))
    }

    async fn counts(&self) -> Result<JobCounts, JobsError> {
        let state = self.lock();
        Ok(JobCounts {
            queued: state.unfinished - state.running,
            running: state.running,
            limit: self.table.places.limit(),
        })
    }

    async fn remove(&self, id: JobId) -> Result<bool, JobsError> {
        let mut state = self.lock();
        let record = state.jobs.get(&id);
        let has_ended = record.is_some_and(|record| record.job.state.is_final());
        if has_ended {
            state.forget_record(id);
            state.forget_missing();
        }
        Ok(has_ended)
    }

    async fn expire(&self, finished_before: SystemTime) -> Result<Vec<JobId>, JobsError> {
        let mut state = self.lock();
        let jobs = state.jobs.values();
        let ended = jobs.filter(|record| record.job.finished_at.is_some_and(|at| at < finished_before));
        let old: Vec<JobId> = ended
            .map(|record| record.job.id)
            .filter(|id| !state.has_pending_webhook(*id))
            .collect();
        for id in &old {
            state.forget_record(*id);
        }
        state.forget_missing();
        Ok(old)
    }
}
