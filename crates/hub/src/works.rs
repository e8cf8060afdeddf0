//! The work on models under way: one for each source, however many ask for it, and what became of those that failed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pentimento_types::Clock;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::HubError;
use crate::progress::{Progress, Rate, Stage};

/// How long a failure is the answer before the work is begun again: long when somebody has to change something first.
const PERMANENT_FAILURE: Duration = Duration::from_secs(60);
const PASSING_FAILURE: Duration = Duration::from_secs(10);

/// The end of a piece of work.
pub(crate) type Ended = Result<PathBuf, Arc<HubError>>;

/// Work on one model. Clones look at the same.
#[derive(Clone, Debug)]
pub struct ModelWork {
    progress: watch::Receiver<Progress>,
    ended: watch::Receiver<Option<Ended>>,
}

impl ModelWork {
    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits for the next change of the progress; false when there is no more.
    pub async fn changed(&mut self) -> bool {
        self.progress.changed().await.is_ok()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why there is no file.
    pub async fn end(&mut self) -> Result<PathBuf, Arc<HubError>> {
        match self.ended.wait_for(Option::is_some).await {
            Ok(ended) => ended
                .clone()
                .unwrap_or_else(|| Err(Arc::new(HubError::Cancelled))),
            // Its task was aborted.
            Err(_) => Err(Arc::new(HubError::Cancelled)),
        }
    }
}

/// Tells how far the work is, from inside.
#[derive(Debug)]
pub(crate) struct Reporter {
    progress: watch::Sender<Progress>,
    rate: Mutex<Rate>,
    clock: Arc<dyn Clock>,
}

impl Reporter {
    pub(crate) fn stage(&self, stage: Stage) {
        self.progress.send_if_modified(|progress| {
            let changed = progress.stage != stage;
            progress.stage = stage;
            changed
        });
    }

    pub(crate) fn expect(&self, total_bytes: u64) {
        self.progress
            .send_modify(|progress| progress.total_bytes = Some(total_bytes));
    }

    /// Bytes that have just come.
    pub(crate) fn came(&self, bytes: u64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = rate.count(bytes, self.clock.now());
        self.progress.send_modify(|progress| {
            progress.done_bytes += bytes;
            progress.bytes_per_second = rate;
        });
    }

    /// Bytes that were here before.
    pub(crate) fn found(&self, bytes: u64) {
        self.progress.send_modify(|progress| progress.done_bytes += bytes);
    }

    /// Bytes that have to come once more.
    pub(crate) fn set_back(&self, bytes: u64) {
        self.progress
            .send_modify(|progress| progress.done_bytes = progress.done_bytes.saturating_sub(bytes));
    }
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    work: ModelWork,
    task: AbortHandle,
}

#[derive(Debug)]
struct Failure {
    error: Arc<HubError>,
    until: Instant,
}

/// All of it, by source. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Works(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    under_way: Mutex<HashMap<String, UnderWay>>,
    begun: AtomicU64,
    failures: Mutex<HashMap<String, Failure>>,
}

impl Works {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            clock,
            under_way: Mutex::default(),
            begun: AtomicU64::new(0),
            failures: Mutex::default(),
        }))
    }

    /// The work on this source that is under way.
    pub(crate) fn find(&self, source: &str) -> Option<ModelWork> {
        self.under_way()
            .get(source)
            .map(|under_way| under_way.work.clone())
    }

    /// Why there is none, as long as it is not worth another try.
    pub(crate) fn failure(&self, source: &str) -> Option<Arc<HubError>> {
        let now = self.0.clock.now();
        let mut failures = self.failures();
        failures.retain(|_, failure| now < failure.until);
        failures.get(source).map(|failure| Arc::clone(&failure.error))
    }

    /// The last failure is no answer any more.
    pub(crate) fn forget_failure(&self, source: &str) {
        self.failures().remove(source);
    }

    /// The work that is under way, or new one. Needs a tokio runtime.
    pub(crate) fn join<F>(&self, source: &str, run: impl FnOnce(Reporter) -> F) -> ModelWork
    where
        F: Future<Output = Result<PathBuf, HubError>> + Send + 'static,
    {
        let mut under_way = self.under_way();
        if let Some(begun) = under_way.get(source) {
            return begun.work.clone();
        }
        self.forget_failure(source);
        let clock = Arc::clone(&self.0.clock);
        let (progress, progress_seen) = watch::channel(Progress::waiting());
        let (end, ended) = watch::channel(None);
        let work = ModelWork {
            progress: progress_seen,
            ended,
        };
        let running = run(Reporter {
            progress,
            rate: Mutex::new(Rate::new(clock.now())),
            clock,
        });
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let off_list = OffList {
            works: self.clone(),
            source: source.to_owned(),
            number,
        };
        let task = tokio::spawn(async move {
            let result = running.await.map_err(Arc::new);
            off_list.note(&result);
            // Off the list before the end is told: who hears of it may ask again.
            drop(off_list);
            end.send_replace(Some(result));
        });
        let its = UnderWay {
            number,
            work: work.clone(),
            task: task.abort_handle(),
        };
        under_way.insert(source.to_owned(), its);
        work
    }

    /// Ends the work on a source; what has arrived is kept for the next time. False when there is none.
    pub(crate) fn cancel(&self, source: &str) -> bool {
        let found = self.under_way().remove(source);
        found.inspect(|under_way| under_way.task.abort()).is_some()
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, Failure>> {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a piece of work off the list when it ends, by a panic or a cancel, too.
struct OffList {
    works: Works,
    source: String,
    number: u64,
}

impl OffList {
    fn note(&self, result: &Ended) {
        let Err(error) = result else { return };
        let lifetime = if error.is_permanent() {
            PERMANENT_FAILURE
        } else {
            PASSING_FAILURE
        };
        let failure = Failure {
            error: Arc::clone(error),
            until: self.works.0.clock.now() + lifetime,
        };
        self.works.failures().insert(self.source.clone(), failure);
    }
}

impl Drop for OffList {
    fn drop(&mut self) {
        // A cancelled one is off the list already, and a newer one may stand in its place.
        let mut under_way = self.works.under_way();
        if under_way
            .get(&self.source)
            .is_some_and(|its| its.number == self.number)
        {
            under_way.remove(&self.source);
        }
    }
}
