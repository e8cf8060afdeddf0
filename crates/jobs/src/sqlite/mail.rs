//! The webhooks that are to be sent, in memory. That one is being sent is known here only: after a start nobody sends it, and
//! it is sent again under its id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_types::{Clock, WebhookId};
use tokio::sync::Notify;

use crate::sending_leases::{self, Leases};
use crate::{OutboxEntry, OutboxState, SendingTurn};

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<WebhookId, OutboxEntry>,
    leases: Leases,
}

#[derive(Debug)]
pub(super) struct Mail {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Wakes who waits in `take`.
    changed: Notify,
}

impl Mail {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A webhook as it was written; one that is not pending is no concern of anybody here. A sending that has begun since it
    /// was read is known here only, and goes on.
    pub(super) fn put(&self, mut webhook: OutboxEntry) {
        let mut state = self.lock();
        if webhook.state == OutboxState::Pending {
            let known = state.pending.get(&webhook.id);
            let begun = known.and_then(|known| known.sendings.checked_sub(webhook.sendings));
            if let (Some(known), Some(begun @ 1..)) = (known, begun) {
                webhook.sendings = known.sendings;
                webhook.in_round += begun;
                webhook.due = known.due;
            } else {
                state.leases.end(webhook.id);
            }
            state.pending.insert(webhook.id, webhook);
        } else {
            state.leases.end(webhook.id);
            state.pending.remove(&webhook.id);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Its job is forgotten.
    pub(super) fn remove(&self, id: WebhookId) {
        let mut state = self.lock();
        state.leases.end(id);
        state.pending.remove(&id);
    }

    pub(super) fn get(&self, id: WebhookId) -> Option<OutboxEntry> {
        self.lock().pending.get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<OutboxEntry> {
        self.lock().pending.values().cloned().collect()
    }

    pub(super) async fn take(&self, lease: Duration, turn: &SendingTurn) -> OutboxEntry {
        let look = || {
            let mut state = self.lock();
            let State { pending, leases } = &mut *state;
            leases.take_first(pending.values_mut(), (turn, lease), &*self.clock)
        };
        sending_leases::first(&self.changed, &*self.clock, look).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pentimento_types::{JobId, ManualClock};

    use super::*;
    use crate::Transition;
    use crate::conformance::sample_job;

    const LEASE: Duration = Duration::from_secs(60);

    fn due(clock: &ManualClock) -> OutboxEntry {
        let mut job = sample_job(JobId::from_u128(1), SystemTime::UNIX_EPOCH);
        job.delivery.webhook = Some("https://receiver.example/hook".to_owned());
        Transition::Cancel.apply(&mut job, clock.wall()).unwrap();
        OutboxEntry::of(&job, clock.wall()).unwrap()
    }

    #[tokio::test]
    async fn a_sending_that_begins_while_a_replay_is_written_is_not_forgotten() {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let mail = Mail::new(Arc::new(clock.clone()));
        let mut replayed = due(&clock);
        mail.put(replayed.clone());
        replayed.replay(clock.wall());
        let taken = mail.take(LEASE, &SendingTurn::default()).await;
        mail.put(replayed);
        let known = mail.get(taken.id).unwrap();
        assert_eq!((known.sendings, known.in_round), (1, 1));
        let turn = SendingTurn::default();
        let again = tokio::select! {
            biased;
            again = mail.take(LEASE, &turn) => Some(again),
            () = std::future::ready(()) => None,
        };
        assert_eq!(again, None, "it is being sent");
        // Nothing of it stays when it has ended.
        let mut settled = known;
        settled
            .settle(taken.sendings, crate::Settlement::Delivered, clock.wall())
            .unwrap();
        mail.put(settled);
        assert_eq!(mail.get(taken.id), None);
    }
}
