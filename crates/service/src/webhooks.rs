//! Sends the webhooks of ended jobs, beside everything else: the outbox says which one is next, the dialect of its job what
//! it says, and the guarded client hands it over.
//!
//! At most [`AT_ONCE`] are under way, of one owner [`OF_AN_OWNER`], and of one receiver as many as [`Receivers`] allows. Nothing
//! that a receiver does reaches a job, and no owner's receivers, however many names they have, take all turns.

mod receivers;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use pentimento_jobs::{OutboxEntry, OutboxFilter, OutboxState, SendingTurn, Settlement};
use pentimento_outbound::{
    AddressGuard, GuardedClient, NotTaken, WebhookMessage, WebhookSecret, WebhookSender,
};
use pentimento_types::{ApiKeyId, describe_chain};
use tokio::task::JoinSet;

use crate::ServiceError;
use crate::inner::Inner;
use crate::metrics::WebhookResult;

use receivers::Receivers;

pub(crate) use schedule::{MAX_AGE, TOO_OLD};

/// Sendings under way at a time.
const AT_ONCE: usize = 32;
/// Of one owner's jobs: any number of names can lead to a receiver that is slow on purpose.
const OF_AN_OWNER: usize = AT_ONCE / 4;
/// What a sending takes beside the exchange: making the message, and writing down how it ended.
const MARGIN: Duration = Duration::from_secs(30);
/// After an outbox that cannot be read.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the webhooks of the last jobs get when the server stops; a store on a disk keeps the others.
const LAST: Duration = Duration::from_secs(5);

/// Sends webhooks to the addresses that `guard` allows, signed with `secret`.
#[must_use]
pub fn webhook_sender(guard: AddressGuard, secret: &WebhookSecret) -> WebhookSender {
    WebhookSender::new(Arc::new(GuardedClient::new(guard)), secret)
}

/// How a sending went.
struct Sent {
    owner: ApiKeyId,
    receiver: String,
    /// Whether the receiver is there: it has answered, and not that it is out of order or wants to be left alone.
    is_well: bool,
}

/// Sends until the service has stopped, then what the last jobs have left.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut receivers = Receivers::default();
    let mut sending = JoinSet::new();
    loop {
        tokio::select! {
            () = step(&inner, &mut receivers, &mut sending) => {}
            () = inner.stopped() => break,
        }
    }
    let end = inner.clock.now() + LAST;
    while !sending.is_empty() || any_due(&inner, &receivers).await {
        tokio::select! {
            () = step(&inner, &mut receivers, &mut sending) => {}
            () = inner.clock.sleep_until(end) => break,
        }
    }
}

/// Begins one sending, or ends one, or waits until a receiver may be asked again. Cancel safe, as `take` is.
async fn step(inner: &Arc<Inner>, receivers: &mut Receivers, sending: &mut JoinSet<Sent>) {
    let now = inner.clock.now();
    let turn = SendingTurn {
        except: receivers.not_now(now),
        under_way: receivers.under_way_of_owners().clone(),
        of_an_owner: OF_AN_OWNER,
    };
    let next = receivers.next_opening(now);
    let opening = async {
        match next {
            Some(at) => inner.clock.sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    let lease = inner.webhooks.longest() + MARGIN;
    tokio::select! {
        taken = inner.outbox.take(lease, &turn), if sending.len() < AT_ONCE => match taken {
            Ok(webhook) => {
                receivers.begin(&webhook.receiver, &webhook.owner);
                sending.spawn(send(Arc::clone(inner), webhook));
            }
            Err(error) => {
                tracing::error!(error = describe_chain(&error), "the outbox cannot be read");
                inner.clock.sleep_until(now + PAUSE).await;
            }
        },
        Some(sent) = sending.join_next() => match sent {
            Ok(Sent { owner, receiver, is_well }) => {
                receivers.end((&receiver, &owner), is_well, inner.clock.now());
            }
            Err(panic) => {
                // Whose it was is not known any more; its lease brings the webhook back.
                tracing::error!(%panic, "sending a webhook panicked");
                receivers.forget_begun();
            }
        },
        () = opening => {}
    }
}

async fn any_due(inner: &Inner, receivers: &Receivers) -> bool {
    let filter = OutboxFilter {
        states: vec![OutboxState::Pending],
        ..OutboxFilter::default()
    };
    let pending = inner.outbox.webhooks(&filter).await.unwrap_or_default();
    let (now, except) = (inner.clock.wall(), receivers.not_now(inner.clock.now()));
    let mut due = pending.iter().filter(|webhook| webhook.is_due(now));
    due.any(|webhook| !except.contains(&webhook.receiver))
}

/// One sending, and what is written down about it.
async fn send(inner: Arc<Inner>, webhook: OutboxEntry) -> Sent {
    let (id, sending) = (webhook.id, webhook.sendings);
    let outcome = match message(&inner, &webhook).await {
        Ok(Some(message)) => inner.webhooks.send(&webhook.url, &message).await,
        Ok(None) => Err(NotTaken {
            is_gone: true,
            ..not_made("the job is not kept any more")
        }),
        Err(error) => Err(not_made(&describe_chain(&error))),
    };
    let is_well = outcome.as_ref().err().is_none_or(|not_taken| not_taken.is_well);
    let settlement = match outcome {
        Ok(()) => Settlement::Delivered,
        Err(not_taken) => {
            tracing::debug!(webhook = %id, sending, cause = not_taken.cause, "a webhook was not taken");
            schedule::after(&webhook, not_taken, inner.clock.wall())
        }
    };
    match inner.outbox.settle(id, sending, settlement).await {
        Ok(webhook) => inner.metrics.webhook_attempt(match webhook.state {
            OutboxState::Pending => WebhookResult::Retried,
            OutboxState::Delivered => {
                tracing::info!(webhook = %id, sending, "delivered");
                WebhookResult::Delivered
            }
            OutboxState::Dead => {
                tracing::warn!(webhook = %id, sending, problem = webhook.problem, "given up");
                WebhookResult::Dead
            }
        }),
        // Replayed or given up in the meantime, or gone with its job.
        Err(error) => {
            tracing::info!(webhook = %id, error = describe_chain(&error), "nothing was written down")
        }
    }
    Sent {
        owner: webhook.owner,
        receiver: webhook.receiver,
        is_well,
    }
}

/// None where the job is gone, which a job with a pending webhook is only when there are too many of them.
async fn message(inner: &Arc<Inner>, webhook: &OutboxEntry) -> Result<Option<WebhookMessage>, ServiceError> {
    let job = inner.store.get(webhook.job()).await;
    let Some(job) = job.map_err(ServiceError::store("read the job"))? else {
        return Ok(None);
    };
    let link = |index, life| inner.lasting_path(&job, index, life);
    let body = inner.webhook_bodies.body(&job, &link);
    Ok(Some(WebhookMessage {
        id: webhook.id.to_string(),
        sent_at: inner.clock.wall(),
        body,
    }))
}

fn not_made(cause: &str) -> NotTaken {
    NotTaken {
        problem: "the message could not be made".to_owned(),
        cause: cause.to_owned(),
        is_gone: false,
        is_well: true,
        retry_after: None,
    }
}

impl Inner {
    /// The address of a webhook in its plain form.
    pub(crate) fn check_webhook(&self, url: &str) -> Result<String, ServiceError> {
        let checked = self.webhooks.check(url);
        checked.map_err(|reason| ServiceError::WebhookRefused { reason })
    }
}
