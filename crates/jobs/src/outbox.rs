//! Webhooks on their way: each is written in the same step as the end of its job, and stays until its receiver has taken it
//! or is given up, over any number of restarts.
//!
//! ```text
//!          take                settle: delivered
//!  Pending ────▶ (being sent) ──────────────────▶ Delivered
//!     ▲  ▲            │  │ settle: dead                │
//!     │  └────────────┘  └─────────────▶ Dead          │ replay
//!     │ settle: again, or its lease is over │          │
//!     └──────────────────────────────────────┴──────────┘
//! ```
//!
//! `sendings` counts how often it was taken, and whoever settles an older sending is refused, as with the attempts of a job.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_types::{ApiKeyId, Job, JobId, WebhookId};

use crate::{JobsError, SendingTurn};

/// Where a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboxState {
    /// To be sent, or being sent.
    Pending,
    /// Its receiver has taken it.
    Delivered,
    /// Given up; only a replay sends it again.
    Dead,
}

/// One webhook. The message itself is made anew for each sending, from the record of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its id, the same for every sending, by which a receiver knows a message that it has already.
    pub id: WebhookId,
    /// Whose job it is.
    pub owner: ApiKeyId,
    /// Where it goes.
    pub url: String,
    /// Host and port of the address: what is slow or dead together.
    pub receiver: String,
    /// Where it is.
    pub state: OutboxState,
    /// When it is sent (again), or may be where the process that sends it says nothing more; of a settled one, when that was.
    pub due: SystemTime,
    /// How often it was sent, the sending under way included.
    pub sendings: u32,
    /// Of them, those since it was last put into the outbox: by its job's end, or by a replay.
    pub in_round: u32,
    /// When that was.
    pub round_began: SystemTime,
    /// Why the latest sending failed; of a dead one, why it is given up. Short, and holds nothing of the receiver's answer.
    pub problem: Option<String>,
}

/// How a sending has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The receiver has it.
    Delivered,
    /// The receiver does not have it, and is asked again.
    Again {
        /// Not before this time.
        due: SystemTime,
        /// Why it failed.
        problem: String,
    },
    /// Nobody will ask the receiver again.
    Dead {
        /// Why.
        problem: String,
    },
}

impl OutboxEntry {
    /// The webhook of a job that has just ended; None for a job that goes on or that nobody is to be told of.
    #[must_use]
    pub fn of(job: &Job, now: SystemTime) -> Option<Self> {
        let url = job.delivery.webhook.as_ref().filter(|_| job.state.is_final())?;
        Some(Self {
            id: WebhookId::of(job.id),
            owner: job.owner.clone(),
            url: url.clone(),
            receiver: receiver_of(url),
            state: OutboxState::Pending,
            due: now,
            sendings: 0,
            in_round: 0,
            round_began: now,
            problem: None,
        })
    }

    /// The job whose end it tells.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.id.job()
    }

    /// Whether it is to be sent now.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.state == OutboxState::Pending && self.due <= now
    }

    /// A sending begins. If nothing more is heard of it, another begins after the lease.
    pub fn take(&mut self, now: SystemTime, lease: Duration) {
        self.sendings += 1;
        self.in_round += 1;
        self.due = now + lease;
    }

    /// The sending that was the `sending`th has ended.
    ///
    /// # Errors
    /// [`JobsError::SendingLost`], and nothing has changed.
    pub fn settle(&mut self, sending: u32, settlement: Settlement, now: SystemTime) -> Result<(), JobsError> {
        // A replay has begun a round in which nothing was sent: what was under way then says nothing about it.
        if self.state != OutboxState::Pending || self.sendings != sending || self.in_round == 0 {
            return Err(JobsError::SendingLost { id: self.id });
        }
        match settlement {
            Settlement::Delivered => {
                self.state = OutboxState::Delivered;
                self.due = now;
                self.problem = None;
            }
            Settlement::Again { due, problem } => {
                self.due = due;
                self.problem = Some(problem);
            }
            Settlement::Dead { problem } => self.give_up(&problem, now),
        }
        Ok(())
    }

    /// It will not be sent any more.
    pub fn give_up(&mut self, problem: &str, now: SystemTime) {
        self.state = OutboxState::Dead;
        self.due = now;
        self.problem = Some(problem.to_owned());
    }

    /// It is sent once more at once, and as often as a new one if that fails.
    pub fn replay(&mut self, now: SystemTime) {
        self.state = OutboxState::Pending;
        self.due = now;
        self.in_round = 0;
        self.round_began = now;
    }
}

/// What stands between `://` and the path. The address was checked before the job was stored.
fn receiver_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    rest[..end].to_ascii_lowercase()
}

/// Which webhooks [`Outbox::webhooks`] returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxFilter {
    /// In one of these states; empty means any.
    pub states: Vec<OutboxState>,
    /// Of this caller only.
    pub owner: Option<ApiKeyId>,
    /// Of this job only.
    pub job: Option<JobId>,
    /// Only those with a greater id, to read on after a page.
    pub after: Option<WebhookId>,
    /// At most so many; 0 means all.
    pub limit: usize,
}

/// The webhooks of a [`crate::JobStore`], kept as long as their jobs.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Waits until a webhook is due that `turn` allows, and takes it for `lease`: of an owner with the fewest sendings under
    /// way the one that is due longest.
    ///
    /// Cancel safe: nothing is taken and lost when the future is dropped.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn take(&self, lease: Duration, turn: &SendingTurn) -> Result<OutboxEntry, JobsError>;

    /// Says how the sending that was the `sending`th ([`OutboxEntry::sendings`]) has ended, and returns the webhook as it is
    /// then.
    ///
    /// # Errors
    /// [`JobsError::SendingLost`], [`JobsError::WebhookNotFound`].
    async fn settle(
        &self,
        id: WebhookId,
        sending: u32,
        settlement: Settlement,
    ) -> Result<OutboxEntry, JobsError>;

    /// Gives all pending webhooks up that were put into the outbox before this time, and says how many. It bounds what waits
    /// for receivers that do not answer.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn give_up(&self, round_began_before: SystemTime, problem: &str) -> Result<usize, JobsError>;

    /// Sends a webhook again that is delivered, dead or pending, under its own id, and returns it.
    ///
    /// # Errors
    /// [`JobsError::WebhookNotFound`].
    async fn replay(&self, id: WebhookId) -> Result<OutboxEntry, JobsError>;

    /// Webhooks that fit the filter, by ascending id.
    ///
    /// # Errors
    /// [`JobsError::Backend`].
    async fn webhooks(&self, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, JobsError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_is_a_host_with_its_port() {
        for (url, receiver) in [
            ("https://Example.com/a/b", "example.com"),
            ("http://example.com:8080?x=1", "example.com:8080"),
            ("http://[::1]:9/#x", "[::1]:9"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(receiver_of(url), receiver, "{url}");
        }
    }
}
