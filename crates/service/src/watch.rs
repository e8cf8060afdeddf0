//! Watching a job: its state, its progress and what it looks like, as they change, and its end.
//!
//! Whoever watches waits for the job: while somebody does, it is not cancelled because its synchronous caller has hung up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pentimento_jobs::JobsError;
use pentimento_types::{ApiKeyId, Job, JobId};
use tokio::sync::watch;

use crate::inner::Inner;
use crate::wait::Waiting;
use crate::watched::{News, Shown};
use crate::{Service, ServiceError};

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Something has changed; this is how things stand.
    News(News),
    /// The job has ended. Nothing comes after it.
    Ended(Box<Job>),
    /// This server stops, and the job goes on elsewhere or later. Nothing comes after it.
    Leaving,
}

type End = Pin<Box<dyn Future<Output = Result<Job, JobsError>> + Send>>;

/// Somebody who watches a job. Holds the latest news at most, however slowly it is asked.
pub struct Watcher {
    inner: Arc<Inner>,
    news: watch::Receiver<News>,
    end: End,
    // Dropped with the watcher: they count.
    _shown: Shown,
    _waiting: Waiting,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("news", &self.news)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// Watches a job of this owner. Previews are made only while somebody wants them.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`], also for a job of another owner.
    pub async fn watch(&self, owner: &ApiKeyId, id: JobId, previews: bool) -> Result<Watcher, ServiceError> {
        let inner = &self.inner;
        let shown = inner.watched.enter(id);
        // Entered before the look, so that no change after it is missed.
        let job = self.fetch_own(owner, id).await?;
        shown.note(&job);
        let shown = if previews { shown.with_previews() } else { shown };
        let (store, inner) = (Arc::clone(&inner.store), Arc::clone(inner));
        Ok(Watcher {
            news: shown.subscribe(),
            end: Box::pin(async move { store.wait_until_ended(id).await }),
            _shown: shown,
            _waiting: Waiting::new(Arc::clone(&inner), id, false),
            inner,
        })
    }
}

impl Watcher {
    /// How things stand; what was news before is none any more.
    pub fn now(&mut self) -> News {
        self.news.borrow_and_update().clone()
    }

    /// Returns when there is news, or at the end.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`ServiceError::JobNotFound`] when the job has been deleted, and what the store answers.
    pub async fn next(&mut self) -> Result<Seen, ServiceError> {
        tokio::select! {
            biased;
            // The end is told with the record, which has the images.
            ended = &mut self.end => match ended {
                Ok(job) => Ok(Seen::Ended(Box::new(job))),
                Err(JobsError::NotFound { id }) => Err(ServiceError::JobNotFound { id }),
                Err(error) => Err(ServiceError::store("wait for the job")(error)),
            },
            // The sender is held by `_shown`, so the channel cannot close.
            Ok(()) = self.news.changed() => Ok(Seen::News(self.now())),
            () = self.inner.stopped() => Ok(Seen::Leaving),
        }
    }
}
