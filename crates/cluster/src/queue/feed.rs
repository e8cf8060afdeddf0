//! Puts the jobs of this node before the others, one of each checkpoint at a time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use pentimento_jobs::{JobsError, QueueEntry};
use pentimento_types::{Clock as _, SystemClock, describe_chain};

use super::Shared;
use crate::ModelToken;
use crate::envelope::WorkMessage;
use crate::failures::failed;
use crate::settings::LEASES_OF_SILENCE;
use crate::subjects::Subjects;

/// Between two looks when nobody says anything.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After a broker that did not take a job.
const PAUSE: Duration = Duration::from_millis(200);
/// Claims of one checkpoint in the whole cluster.
const MOST_CLAIMS: i64 = 1_000_000;

/// Runs for as long as the queue lives.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let pause = match shared.put_out().await {
            Ok(()) => LOOK_AGAIN,
            Err(error) => {
                tracing::debug!(
                    error = describe_chain(&error),
                    "a job could not be put into the cluster's queue"
                );
                PAUSE
            }
        };
        tokio::select! {
            () = shared.feed.notified(), if pause == LOOK_AGAIN => {}
            () = SystemClock.sleep_until(SystemClock.now() + pause) => {}
        }
    }
}

impl Shared {
    /// Puts out whatever may go.
    async fn put_out(&self) -> Result<(), JobsError> {
        while self.connection.is_up() {
            let next = self.lock().lines.next_out(SystemClock.now());
            let Some((token, entry)) = next else { break };
            match self.publish(&token, &entry).await {
                // While it was on its way it was forgotten.
                Ok(true) if self.lock().forgotten.contains_key(&entry.id) => self.purge(entry.id).await?,
                Ok(true) => self.tell_ready(&entry).await,
                // Of an earlier life of this node: somebody may have it, and it keeps nobody back.
                Ok(false) => self.lock().lines.taken(entry.id, SystemClock.now()),
                Err(error) => {
                    self.lock().lines.not_out(entry.id);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// False where the stream has the job already.
    async fn publish(&self, token: &ModelToken, entry: &QueueEntry) -> Result<bool, JobsError> {
        let what = "put a job into the cluster's queue";
        // Whatever is missing is made first.
        self.connection.rooms().await?;
        self.make_consumer(token).await?;
        let message = WorkMessage::new(self.node.clone(), entry).encode();
        let payload = message.map_err(|too_large| JobsError::TooLarge {
            bytes: too_large.0,
            limit: crate::envelope::LARGEST,
        })?;
        let subject = self.connection.subjects().work(token, entry.id);
        let message = PublishMessage::build()
            .payload(payload)
            .message_id(self.message_id(entry))
            // One message per job.
            .expected_last_subject_sequence(0);
        let sent = self.connection.jetstream().send_publish(subject, message).await;
        let error = match sent {
            Ok(stored) => match stored.await {
                Ok(_) => return Ok(true),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if error.kind() == PublishErrorKind::WrongLastSequence {
            return Ok(false);
        }
        self.connection.distrust_rooms();
        Err(failed(what)(error))
    }

    /// By which the broker knows a message that it has already, for two minutes. A job that has left the stream may come again
    /// sooner than that, so that its id alone will not do.
    fn message_id(&self, entry: &QueueEntry) -> String {
        let mut state = self.lock();
        state.last_token += 1;
        format!("{}.{}.{}", entry.id, self.node, state.last_token)
    }

    /// The consumer from which all nodes take the jobs of a checkpoint.
    async fn make_consumer(&self, token: &ModelToken) -> Result<(), JobsError> {
        let epoch = *self.connection.epochs().borrow();
        {
            let made = &mut self.lock().made;
            if made.0 != epoch {
                *made = (epoch, std::collections::HashSet::new());
            }
            if made.1.contains(token) {
                return Ok(());
            }
        }
        let subjects = self.connection.subjects();
        let config = pull::Config {
            durable_name: Some(Subjects::consumer(token)),
            filter_subject: subjects.work_of(token),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.connection.settings().lease * LEASES_OF_SILENCE,
            max_ack_pending: MOST_CLAIMS,
            ..pull::Config::default()
        };
        let jetstream = self.connection.jetstream();
        let made = jetstream
            .create_consumer_on_stream(config, subjects.work_stream(subjects.stream_of(token)))
            .await;
        made.map_err(failed("set a consumer of the cluster's queue up"))?;
        self.lock().made.1.insert(token.clone());
        Ok(())
    }

    /// Something was deleted on the broker.
    pub(super) fn make_consumers_again(&self) {
        self.lock().made.1.clear();
    }
}
