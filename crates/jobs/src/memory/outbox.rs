//! The webhooks.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use pentimento_types::WebhookId;

use super::{MemoryJobs, State, Table};
use crate::{
    JobsError, Outbox, OutboxEntry, OutboxFilter, OutboxState, SendingTurn, Settlement, sending_leases,
};

impl State {
    fn webhook(&mut self, id: WebhookId) -> Result<&mut OutboxEntry, JobsError> {
        self.outbox.get_mut(&id).ok_or(JobsError::WebhookNotFound { id })
    }
}

#[async_trait]
impl Outbox for MemoryJobs {
    async fn take(&self, lease: Duration, turn: &SendingTurn) -> Result<OutboxEntry, JobsError> {
        let Table { clock, mail, .. } = &*self.table;
        let look = || {
            let mut state = self.lock();
            let State { outbox, leases, .. } = &mut *state;
            leases.take_first(outbox.values_mut(), (turn, lease), &**clock)
        };
        Ok(sending_leases::first(mail, &**clock, look).await)
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
        let settled = webhook.clone();
        state.leases.end(id);
        // Somebody may be waiting for the end of its lease.
        self.table.mail.notify_waiters();
        Ok(settled)
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
        let replayed = webhook.clone();
        state.leases.end(id);
        self.table.mail.notify_waiters();
        Ok(replayed)
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
