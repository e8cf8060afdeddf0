//! The webhooks that are being sent, and which of the others is next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pentimento_types::{Clock, WebhookId};
use tokio::sync::Notify;

use crate::{OutboxEntry, OutboxState, SendingTurn};

/// The clock on the wall may jump, so that nobody sleeps longer without looking at it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Waits for a webhook whose turn it is: `look` takes it, or says how long until the first is due. Whoever changes what it
/// looks at notifies `changed`. Cancel safe where `look` is.
pub(crate) async fn first(
    changed: &Notify,
    clock: &dyn Clock,
    look: impl Fn() -> Result<OutboxEntry, Option<Duration>>,
) -> OutboxEntry {
    loop {
        let mut change = std::pin::pin!(changed.notified());
        // Enlisted before the look, so that an end between look and wait is not missed.
        change.as_mut().enable();
        match look() {
            Ok(webhook) => return webhook,
            Err(None) => change.await,
            Err(Some(wait)) => {
                let until = clock.now() + wait.min(LOOK_AGAIN);
                tokio::select! {
                    () = change => {}
                    () = clock.sleep_until(until) => {}
                }
            }
        }
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
        let ranked = pending.filter(|webhook| may_take(turn, webhook)).map(|webhook| {
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

fn may_take(turn: &SendingTurn, webhook: &OutboxEntry) -> bool {
    webhook.state == OutboxState::Pending
        && turn.sendings_of(&webhook.owner) < turn.of_an_owner
        && !turn.except.contains(&webhook.receiver)
}
