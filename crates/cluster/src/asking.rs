//! Nodes ask each other whether one has a job whose name another found, and cannot find the job: only the node that took the
//! name knows.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use pentimento_jobs::JobStore as _;
use pentimento_types::{Clock as _, JobId, SystemClock, describe_chain};
use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::envelope::{plain, read_plain};
use crate::shared::Shared;

/// After a subscription that could not be made or has ended.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a node has to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Bytes of the longest question.
const LONGEST: usize = 256;

/// What a node knows of a job that it may have accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// It has it, and the cluster knows or will know it.
    Has,
    /// It is about to store it.
    Stores,
    /// It has no such job, and will have none.
    HasNot,
}

#[derive(Serialize, Deserialize)]
struct Question {
    job: JobId,
}

/// Answers for as long as the store lives.
pub(crate) async fn answer(shared: Arc<Shared>) {
    loop {
        let subject = shared.connection.subjects().ask(&shared.node);
        // The client subscribes again by itself when it connects again.
        if let Ok(mut questions) = shared.connection.client().subscribe(subject).await {
            while let Some(message) = questions.next().await {
                let Some(reply) = message.reply.filter(|_| message.payload.len() <= LONGEST) else {
                    continue;
                };
                let Some(Question { job }) = read_plain(&message.payload) else {
                    continue;
                };
                if let Some(word) = shared.word_on(job).await {
                    // Who does not hear it asks again.
                    let _ = shared.connection.client().publish(reply, plain(&word)).await;
                }
            }
        }
        SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
    }
}

impl Shared {
    /// What a node says of a job; None where it cannot be heard.
    pub(crate) async fn ask(&self, home: &NodeId, job: JobId) -> Option<Word> {
        if *home == self.node {
            return self.word_on(job).await;
        }
        let subject = self.connection.subjects().ask(home);
        let asked = self
            .connection
            .client()
            .request(subject, plain(&Question { job }));
        let answer = tokio::time::timeout(ANSWER, asked).await.ok()?.ok()?;
        read_plain(&answer.payload)
    }

    /// What this node knows of a job that it may have accepted; None where it does not know.
    async fn word_on(&self, id: JobId) -> Option<Word> {
        // Looked at before the journal: a job that is stored in between has left this mark for that.
        if self.being_stored.contains(id) {
            return Some(Word::Stores);
        }
        match self.own.get(id).await {
            Ok(Some(job)) => {
                if let Err(error) = self.share_latest(job).await {
                    tracing::debug!(job = %id, error = describe_chain(&error), "the cluster hears of it later");
                    self.unsettled.add(id);
                }
                Some(Word::Has)
            }
            Ok(None) => Some(Word::HasNot),
            Err(_) => None,
        }
    }
}
