//! What the journals of servers that have stopped say became of every request, held against what callers and the receiver of
//! webhooks say.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pentimento_jobs::{
    JobFilter, JobLimits, JobStore as _, Outbox as _, OutboxEntry, OutboxFilter, OutboxState, SqliteJobs,
};
use pentimento_types::{Job, JobOutcome, JobState, SystemClock, WebhookId};
use serde_json::Value;

use super::callers::End;

/// What servers have written down.
pub(crate) struct Account {
    jobs: Vec<Job>,
    outbox: Vec<OutboxEntry>,
}

impl Account {
    /// Of servers whose homes these are; none of them may run.
    pub(crate) async fn read(homes: &[PathBuf]) -> Self {
        let (mut jobs, mut outbox) = (Vec::new(), Vec::new());
        for home in homes {
            let limits = JobLimits::in_number(1000, 1_000_000);
            let path = home.join("data/jobs.sqlite");
            let (store, recovery) = SqliteJobs::open(&path, Arc::new(SystemClock), limits).expect("readable");
            assert_eq!((recovery.damaged, recovery.damaged_file), (0, None));
            jobs.extend(store.list(&JobFilter::default()).await.expect("readable"));
            outbox.extend(store.webhooks(&OutboxFilter::default()).await.expect("readable"));
        }
        Self { jobs, outbox }
    }

    fn count(&self, state: JobState) -> usize {
        self.jobs.iter().filter(|job| job.state == state).count()
    }

    /// Every job has ended, with one result or with the reason of two crashes, and what callers were told is true.
    pub(crate) fn judge_jobs(&self, ends: &[End], is_stored: impl Fn(&str) -> bool) {
        let states = [JobState::Succeeded, JobState::Failed, JobState::Cancelled];
        let [done, failed, cancelled] = states.map(|state| self.count(state));
        let again = self.jobs.iter().filter(|job| job.attempt > 1).count();
        println!(
            "{} jobs: {done} done, {failed} failed, {cancelled} cancelled; {again} in more than one attempt",
            self.jobs.len()
        );
        let open: Vec<_> = self.jobs.iter().filter(|job| !job.state.is_final()).collect();
        assert!(open.is_empty(), "all have ended: {open:#?}");
        let mut keys = HashMap::new();
        for job in &self.jobs {
            match &job.outcome {
                Some(JobOutcome::Succeeded(images)) => {
                    for image in images {
                        assert!(is_stored(image.key.as_str()), "{}", image.key);
                    }
                    if let Some(request) = &job.idempotency {
                        let twin = keys.insert(request.key.as_str(), job.id);
                        assert_eq!(twin, None, "{} was made twice", request.key);
                    }
                }
                // In flight at two kills, which is as often as a job may be.
                Some(JobOutcome::Failed(failure)) => {
                    assert!(failure.message.contains("poison"), "{failure:?}");
                }
                Some(JobOutcome::Cancelled) | None => {}
            }
        }
        let mut pictures = 0;
        for end in ends {
            match end {
                End::Picture(key) => {
                    pictures += 1;
                    assert!(keys.contains_key(key.as_str()), "{key} is in no journal");
                }
                End::Failed(reply) => assert!(reply.contains("poison"), "{reply}"),
                End::HungUp => {}
            }
        }
        println!("{} requests: {pictures} pictures", ends.len());
        assert!(pictures > 0, "callers got something");
    }

    /// Each end of a job with a webhook was told under one id, or will be, and always the same was told.
    pub(crate) fn judge_webhooks(&self, messages: &BTreeMap<String, Vec<Value>>) {
        let mut ended: Vec<WebhookId> = self
            .jobs
            .iter()
            .filter(|job| job.delivery.webhook.is_some())
            .map(|job| WebhookId::of(job.id))
            .collect();
        let mut noted: Vec<WebhookId> = self.outbox.iter().map(|webhook| webhook.id).collect();
        ended.sort();
        noted.sort();
        assert_eq!(noted, ended, "one for each outcome");
        for webhook in &self.outbox {
            assert_ne!(webhook.state, OutboxState::Dead, "{webhook:?}");
            let arrived = messages.get(&webhook.id.to_string());
            if webhook.state == OutboxState::Delivered {
                assert!(arrived.is_some(), "it was delivered: {webhook:?}");
            }
            for message in arrived.into_iter().flatten() {
                let first = &arrived.expect("there is one")[0];
                assert_eq!(
                    (&message["id"], &message["status"]),
                    (&first["id"], &first["status"])
                );
            }
        }
        let known = |id: &String| noted.iter().any(|webhook| webhook.to_string() == *id);
        assert!(messages.keys().all(known), "no outcome was told under two ids");
        println!(
            "{} webhooks, {} sendings",
            self.outbox.len(),
            messages.values().map(Vec::len).sum::<usize>()
        );
    }

    /// How often a job was in flight when its machine ended without a word.
    pub(crate) fn crashes(&self) -> u32 {
        self.jobs.iter().map(|job| job.crashes).sum()
    }

    /// Pictures that the jobs say they have.
    pub(crate) fn pictures(&self) -> usize {
        let of = |job: &Job| match &job.outcome {
            Some(JobOutcome::Succeeded(images)) => images.len(),
            Some(JobOutcome::Failed(_) | JobOutcome::Cancelled) | None => 0,
        };
        self.jobs.iter().map(of).sum()
    }
}

/// Whether a server that keeps pictures in its folder has this one.
pub(crate) fn is_in_folder(home: &Path) -> impl Fn(&str) -> bool {
    move |key| home.join("data/images").join(key).is_file()
}
