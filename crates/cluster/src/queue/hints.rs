//! Short messages that spare everybody waiting: a job is there, somebody has it, it is done. They are not kept, and nothing is
//! lost with one: what they tell is looked for as well, less often.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use pentimento_jobs::QueueEntry;
use pentimento_types::{Clock as _, JobId, ModelId, SystemClock};
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::NodeId;
use crate::envelope::{plain, read_plain};

/// After a subscription that could not be made.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the longest message that is looked at; names of models are short.
const LONGEST: usize = 4096;
/// Jobs of one checkpoint that are remembered as waiting: one is enough to ask for them.
const REMEMBERED: usize = 1024;

/// A job waits in the stream.
#[derive(Serialize, Deserialize)]
struct Ready {
    job: JobId,
    model: ModelId,
}

/// What has become of a job that its home has put into the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HomeNews {
    /// A node has it.
    Taken,
    /// A node could not take it, or has given it back.
    Passed,
    /// It is out of the stream.
    Done,
}

#[derive(Serialize, Deserialize)]
struct ForHome {
    job: JobId,
    news: HomeNews,
}

/// Listens for as long as the queue lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let subjects = shared.connection.subjects();
    let (ready, home) = (subjects.ready(), subjects.home(&shared.node));
    loop {
        let client = shared.connection.client();
        // The client subscribes again by itself when it connects again.
        let subscribed = tokio::try_join!(client.subscribe(ready.clone()), client.subscribe(home.clone()));
        let Ok((mut ready, mut home)) = subscribed else {
            SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
            continue;
        };
        loop {
            tokio::select! {
                message = ready.next() => match message {
                    Some(message) => shared.hear_ready(&message.payload),
                    None => break,
                },
                message = home.next() => match message {
                    Some(message) => shared.hear_home(&message.payload),
                    None => break,
                },
            }
        }
        SystemClock.sleep_until(SystemClock.now() + PAUSE).await;
    }
}

impl Shared {
    /// Everybody may ask for the job.
    pub(super) async fn tell_ready(&self, entry: &QueueEntry) {
        self.note_ready(entry.id, &entry.model);
        let message = Ready {
            job: entry.id,
            model: entry.model.clone(),
        };
        self.tell(self.connection.subjects().ready(), plain(&message))
            .await;
    }

    pub(super) async fn tell_home(&self, home: &NodeId, job: JobId, news: HomeNews) {
        if *home == self.node {
            self.note_home(job, news);
            return;
        }
        let message = plain(&ForHome { job, news });
        self.tell(self.connection.subjects().home(home), message).await;
    }

    async fn tell(&self, subject: String, message: bytes::Bytes) {
        if self.connection.is_up() {
            // Who does not hear it finds it out.
            let _ = self.connection.client().publish(subject, message).await;
        }
    }

    fn hear_ready(&self, payload: &[u8]) {
        if payload.len() > LONGEST {
            return;
        }
        if let Some(Ready { job, model }) = read_plain(payload) {
            self.note_ready(job, &model);
        }
    }

    fn note_ready(&self, job: JobId, model: &ModelId) {
        {
            let mut state = self.lock();
            let token = state.learn(model);
            if state.models.contains_key(&token) {
                let waiting = state.waiting.entry(token).or_default();
                if waiting.len() < REMEMBERED {
                    waiting.insert(job);
                }
            }
        }
        self.work.notify_waiters();
    }

    fn hear_home(&self, payload: &[u8]) {
        if payload.len() > LONGEST {
            return;
        }
        if let Some(ForHome { job, news }) = read_plain(payload) {
            self.note_home(job, news);
        }
    }

    fn note_home(&self, job: JobId, news: HomeNews) {
        let now = SystemClock.now();
        {
            let lines = &mut self.lock().lines;
            match news {
                HomeNews::Taken => lines.taken(job, now),
                HomeNews::Passed => lines.passed(job, now),
                HomeNews::Done => lines.remove(job),
            }
        }
        self.feed.notify_one();
        if news == HomeNews::Done {
            self.unsettled.add(job);
        }
    }
}
