//! Which webhook is sent next: the rule that every outbox goes by, and the leases of those that are being sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, Clock, WebhookId};

use crate::{OutboxEntry, OutboxState};

/// Whom a sender may send to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendingTurn {
    /// Receivers that get nothing.
    pub except: Vec<String>,
    /// The sendings under way of each owner. Of the webhooks that are due, one of the owner with the fewest comes first.
    pub under_way: HashMap<ApiKeyId, usize>,
    /// An owner with so many under way gets no other.
    pub of_an_owner: usize,
}

impl Default for SendingTurn {
    /// Anybody's, to anybody.
    fn default() -> Self {
        Self {
            except: Vec::new(),
            under_way: HashMap::new(),
            of_an_owner: usize::MAX,
        }
    }
}

impl SendingTurn {
    fn sendings_of(&self, owner: &ApiKeyId) -> usize {
        self.under_way.get(owner).copied().unwrap_or_default()
    }

    fn may_take(&self, webhook: &OutboxEntry) -> bool {
        webhook.state == OutboxState::Pending
            && self.sendings_of(&webhook.owner) < self.of_an_owner
            && !self.except.contains(&webhook.receiver)
    }
}

/// Until when the webhooks that are being sent are their senders'. Told by the clock that never jumps: a clock on the wall that is
/// set forward sends nothing a second time while it is under way.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    until: HashMap<WebhookId, Instant>,
}

impl Leases {
    /// Takes the webhook whose turn it is: of those that are due, of an owner with the fewest sendings, the one that is due
    /// longest. None is due: how long until the first is, if there is one.
    pub(crate) fn take_first<'a>(
        &mut self,
        pending: impl Iterator<Item = &'a mut OutboxEntry>,
        (turn, lease): (&SendingTurn, Duration),
        clock: &dyn Clock,
    ) -> Result<OutboxEntry, Option<Duration>> {
        let (now, wall) = (clock.now(), clock.wall());
        let ranked = pending.filter(|webhook| turn.may_take(webhook)).map(|webhook| {
            let wait = match self.until.get(&webhook.id) {
                Some(until) => until.saturating_duration_since(now),
                None => webhook.due.duration_since(wall).unwrap_or_default(),
            };
            let sendings = if wait.is_zero() {
                turn.sendings_of(&webhook.owner)
            } else {
                0
            };
            ((wait, sendings, webhook.due, webhook.id), webhook)
        });
        match ranked.min_by(|a, b| a.0.cmp(&b.0)) {
            Some(((Duration::ZERO, ..), webhook)) => {
                webhook.take(wall, lease);
                self.until.insert(webhook.id, now + lease);
                Ok(webhook.clone())
            }
            first => Err(first.map(|((wait, ..), _)| wait)),
        }
    }

    /// Nobody sends it any more.
    pub(crate) fn end(&mut self, id: WebhookId) {
        self.until.remove(&id);
    }
}
