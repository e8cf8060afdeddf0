//! The webhooks.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_types::WebhookId;

use super::{MemoryJobs, State};
use crate::{JobsError, Outbox, OutboxEntry, OutboxFilter, OutboxState, Settlement};

/// The clock on the wall may jump, so that nobody sleeps longer without looking at it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl State {
    fn webhook(&mut self, id: WebhookId) -> Result<&mut OutboxEntry, JobsError> {
        self.outbox.get_mut(&id).ok_or(JobsError::WebhookNotFound { id })
    }

    /// The pending webhook of no such receiver that is due first.
    fn first_due(&mut self, except: &[String]) -> Option<&mut OutboxEntry> {
        let pending = self.outbox.values_mut();
        let pending = pending
            .filter(|webhook| webhook.state == OutboxState::Pending && !except.contains(&webhook.receiver));
        pending.min_by_key(|webhook| (webhook.due, webhook.id))
    }
}

#[async_trait]
impl Outbox for MemoryJobs {
    async fn take(&self, lease: Duration, except: &[String]) -> Result<OutboxEntry, JobsError> {
        loop {
            let mut mail = std::pin::pin!(self.table.mail.notified());
            // Enlisted before the look, so that an end between look and wait is not missed.
            mail.as_mut().enable();
            let wait = {
                let now = self.table.clock.wall();
                let mut state = self.lock();
                match state.first_due(except) {
                    Some(webhook) if webhook.is_due(now) => {
                        webhook.take(now, lease);
                        return Ok(webhook.clone());
                    }
                    first => first.map(|webhook| webhook.due.duration_since(now).unwrap_or_default()),
                }
            };
            match wait {
                None => mail.await,
                Some(wait) => {
                    let until = self.table.clock.now() + wait.min(LOOK_AGAIN);
                    tokio::select! {
                        () = mail => {}
                        () = self.table.clock.sleep_until(until) => {}
                    }
                }
            }
        }
    }

    async fn settle(
        &self,
        id: WebhookId,
        sending: u32,
        settlement: Settlement,
    ) -> Result<OutboxEntry, JobsError> {
        let now = self.table.clock.wall();
        let mut state = self.lock();
        let webhook = state.webhook(id)?;
        webhook.settle(sending, settlement, now)?;
        // Somebody may be waiting for the end of its lease.
        self.table.mail.notify_waiters();
        Ok(webhook.clone())
    }

    async fn give_up(&self, round_began_before: SystemTime, problem: &str) -> Result<usize, JobsError> {
        let now = self.table.clock.wall();
        let mut state = self.lock();
        let pending = state.outbox.values_mut();
        let old = pending.filter(|webhook| {
            webhook.state == OutboxState::Pending && webhook.round_began < round_began_before
        });
        let given_up = old.map(|webhook| webhook.give_up(problem, now));
        Ok(given_up.count())
    }

    async fn replay(&self, id: WebhookId) -> Result<OutboxEntry, JobsError> {
        let now = self.table.clock.wall();
        let mut state = self.lock();
        let webhook = state.webhook(id)?;
        webhook.replay(now);
        self.table.mail.notify_waiters();
        Ok(webhook.clone())
    }

    async fn webhooks(&self, filter: &OutboxFilter) -> Result<Vec<OutboxEntry>, JobsError> {
        let limit = if filter.limit == 0 {
            usize::MAX
        } else {
            filter.limit
        };
        let state = self.lock();
        let webhooks = state
            .outbox
            .values()
            .filter(|webhook| filter.after.is_none_or(|after| webhook.id > after))
            .filter(|webhook| filter.states.is_empty() || filter.states.contains(&webhook.state))
            .filter(|webhook| filter.job.is_none_or(|job| webhook.job() == job))
            .filter(|webhook| filter.owner.as_ref().is_none_or(|owner| *owner == webhook.owner));
        Ok(webhooks.take(limit).cloned().collect())
    }
}
