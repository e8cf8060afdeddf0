//! The webhooks that are to be sent, in memory. That one is being sent is known here only: after a start nobody sends it, and
//! it is sent again under its id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_types::{Clock, WebhookId};
use tokio::sync::Notify;

use crate::sending_turn::Leases;
use crate::{OutboxEntry, OutboxState, SendingTurn};

/// The clock on the wall may jump, so that nobody sleeps longer without looking at it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

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

    /// A webhook as it is now; one that is not pending is no concern of anybody here.
    pub(super) fn put(&self, webhook: OutboxEntry) {
        let mut state = self.lock();
        state.leases.end(webhook.id);
        if webhook.state == OutboxState::Pending {
            state.pending.insert(webhook.id, webhook);
        } else {
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
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Enlisted before the look, so that an end between look and wait is not missed.
            changed.as_mut().enable();
            let wait = {
                let mut state = self.lock();
                let State { pending, leases } = &mut *state;
                match leases.take_first(pending.values_mut(), (turn, lease), &*self.clock) {
                    Ok(webhook) => return webhook,
                    Err(wait) => wait,
                }
            };
            match wait {
                None => changed.await,
                Some(wait) => {
                    let until = self.clock.now() + wait.min(LOOK_AGAIN);
                    tokio::select! {
                        () = changed => {}
                        () = self.clock.sleep_until(until) => {}
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
