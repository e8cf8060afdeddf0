//! What has become of the jobs, as counters and histograms of the process.
//!
//! Invariant: a label is a word of ours (a dialect's name, a kind of error), never a caller's text, a key or a model.

use std::time::{Duration, SystemTime};

use pentimento_jobs::Recovery;
use pentimento_types::{Job, JobOutcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How jobs of a dialect ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobEnd {
    outcome: &'static str,
    /// Of the failure; `none` without one.
    kind: &'static str,
    dialect: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Dialect {
    dialect: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attempt {
    result: &'static str,
}

/// How an attempt to deliver a webhook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookResult {
    /// The receiver has it.
    Delivered,
    /// It will be tried again.
    Retried,
    /// It will not be tried again.
    Dead,
}

impl WebhookResult {
    const ALL: &'static [Self] = &[Self::Delivered, Self::Retried, Self::Dead];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Dead => "dead",
        }
    }
}

/// Of all jobs. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    ended: Family<JobEnd, Counter>,
    wait_seconds: Histogram,
    job_seconds: Family<Dialect, Histogram, fn() -> Histogram>,
    webhook_attempts: Family<Attempt, Counter>,
    damaged_records: Gauge,
    mended_pages: Gauge,
    rebuilt: Gauge,
}

/// From ten milliseconds to ten minutes.
fn of_jobs() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 17))
}

impl Default for ServiceMetrics {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            wait_seconds: of_jobs(),
            job_seconds: Family::new_with_constructor(of_jobs),
            webhook_attempts: Family::default(),
            damaged_records: Gauge::default(),
            mended_pages: Gauge::default(),
            rebuilt: Gauge::default(),
        }
    }
}

impl ServiceMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        // There from the start: what appears with its first event has no rise that an alert could see.
        for result in WebhookResult::ALL {
            let result = result.as_str();
            drop(self.webhook_attempts.get_or_create(&Attempt { result }));
        }
        registry.register(
            "jobs_ended",
            "Jobs that ended, by how, by the kind of failure, and by dialect",
            self.ended.clone(),
        );
        registry.register_with_unit(
            "job_wait",
            "Time from a job's acceptance until the device began with it",
            Unit::Seconds,
            self.wait_seconds.clone(),
        );
        registry.register_with_unit(
            "job",
            "Time from a job's acceptance until it succeeded",
            Unit::Seconds,
            self.job_seconds.clone(),
        );
        registry.register(
            "webhook_attempts",
            "Attempts to deliver a webhook, by how they ended",
            self.webhook_attempts.clone(),
        );
        registry.register(
            "jobs_damaged_records",
            "Records of jobs that the start has found damaged and set aside",
            self.damaged_records.clone(),
        );
        registry.register(
            "jobs_mended_pages",
            "Damaged pages of the jobs' journal that the start has mended",
            self.mended_pages.clone(),
        );
        registry.register(
            "jobs_file_rebuilt",
            "1 where the start has made a new database of what could be read of a damaged one",
            self.rebuilt.clone(),
        );
    }

    /// What the start has found of the jobs.
    pub fn recovered(&self, recovery: &Recovery) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.damaged_records.set(number(recovery.damaged));
        self.mended_pages.set(number(recovery.mended_pages));
        self.rebuilt.set(i64::from(recovery.damaged_file.is_some()));
    }

    /// The device begins with a job.
    pub(crate) fn began(&self, job: &Job, now: SystemTime) {
        // What was begun before has waited once.
        if job.attempt == 1 {
            self.wait_seconds
                .observe(between(job.created_at, now).as_secs_f64());
        }
    }

    /// A job has come to its end.
    pub(crate) fn ended(&self, job: &Job) {
        let (outcome, kind) = match &job.outcome {
            Some(JobOutcome::Succeeded(_)) => ("succeeded", "none"),
            Some(JobOutcome::Failed(failure)) => ("failed", failure.kind.as_str()),
            Some(JobOutcome::Cancelled) => ("cancelled", "none"),
            None => return,
        };
        let dialect = || job.dialect.name.clone();
        let end = JobEnd {
            outcome,
            kind,
            dialect: dialect(),
        };
        self.ended.get_or_create(&end).inc();
        if let (Some(JobOutcome::Succeeded(_)), Some(end)) = (&job.outcome, job.finished_at) {
            let seconds = self.job_seconds.get_or_create(&Dialect { dialect: dialect() });
            seconds.observe(between(job.created_at, end).as_secs_f64());
        }
    }

    /// A webhook was sent, or could not be.
    pub fn webhook_attempt(&self, result: WebhookResult) {
        let result = result.as_str();
        self.webhook_attempts.get_or_create(&Attempt { result }).inc();
    }
}

/// The clock on the wall may have been set back in the meantime.
fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_start_has_found_damaged_is_counted() {
        let metrics = ServiceMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.recovered(&Recovery {
            damaged: 2,
            mended_pages: 3,
            damaged_file: Some("jobs.sqlite.damaged".into()),
            ..Recovery::default()
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "jobs_damaged_records 2",
            "jobs_mended_pages 3",
            "jobs_file_rebuilt 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
