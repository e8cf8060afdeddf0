//! What those who watch a job are shown: only ever the latest of everything, so that a slow watcher misses news and holds
//! nothing up, and a thousand of them cost one notification.
//!
//! Nothing is kept of a job that neither runs here nor is watched. The record in the store stays the truth: how a job ended
//! is read from there alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pentimento_engine::PreviewSwitch;
use pentimento_types::{Job, JobId, JobState, Progress, Size};
use tokio::sync::watch;

/// One image of a job while it is made: a small JPEG file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Which of the job's images, from 0.
    pub index: u32,
    /// How far the job was.
    pub at: Progress,
    /// The file.
    pub file: Bytes,
    /// Its pixels.
    pub size: Size,
}

/// The latest news of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Where it is.
    pub state: JobState,
    /// How many times it has been started.
    pub attempt: u32,
    /// How far this attempt is; None until its first evaluation can begin, and for a job that runs in another process.
    pub progress: Option<Progress>,
    /// What it looks like, where somebody wanted to see it.
    pub preview: Option<Arc<Preview>>,
}

impl News {
    const fn of(state: JobState, attempt: u32) -> Self {
        Self {
            state,
            attempt,
            progress: None,
            preview: None,
        }
    }

    /// A number that only grows over the life of a job: each attempt has one for running and one for waiting after it.
    #[must_use]
    pub const fn phase(&self) -> u64 {
        match self.state {
            JobState::Fetching => 0,
            JobState::Queued => 2 * self.attempt as u64 + 1,
            JobState::Running => 2 * self.attempt as u64,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => u64::MAX,
        }
    }
}

/// All jobs that are watched or run in this process.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    jobs: Mutex<HashMap<JobId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Watchers and attempts.
    users: usize,
    /// Watchers who want previews.
    viewers: usize,
    switch: PreviewSwitch,
    news: watch::Sender<News>,
}

impl Watched {
    /// Keeps what is shown of a job until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, id: JobId) -> Shown {
        let mut jobs = self.jobs();
        let entry = jobs.entry(id).or_insert_with(|| Entry {
            users: 0,
            viewers: 0,
            switch: PreviewSwitch::default(),
            news: watch::Sender::new(News::of(JobState::Fetching, 0)),
        });
        entry.users += 1;
        Shown {
            watched: Arc::clone(self),
            id,
            is_viewer: false,
            switch: entry.switch.clone(),
            news: entry.news.clone(),
        }
    }

    /// The job is in another state.
    pub(crate) fn note(&self, job: &Job) {
        if let Some(entry) = self.jobs().get(&job.id) {
            note_in(&entry.news, job);
        }
    }

    /// How far an attempt is that runs elsewhere.
    pub(crate) fn progress(&self, id: JobId, attempt: u32, progress: Progress) {
        if let Some(entry) = self.jobs().get(&id) {
            progress_in(&entry.news, attempt, progress);
        }
    }

    /// How many jobs are kept.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.jobs().len()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Old news, from a record that was read before the newer was told, changes nothing.
fn note_in(news: &watch::Sender<News>, job: &Job) {
    let newer = News::of(job.state, job.attempt);
    news.send_if_modified(|news| {
        let is_newer = news.phase() < newer.phase();
        if is_newer {
            *news = newer;
        }
        is_newer
    });
}

fn progress_in(news: &watch::Sender<News>, attempt: u32, progress: Progress) {
    news.send_if_modified(|news| {
        let is_news = news.is_running(attempt) && news.progress.is_none_or(|old| old.done < progress.done);
        if is_news {
            news.progress = Some(progress);
        }
        is_news
    });
}

/// One watcher of a job, or its attempt.
#[derive(Debug)]
pub(crate) struct Shown {
    watched: Arc<Watched>,
    id: JobId,
    is_viewer: bool,
    switch: PreviewSwitch,
    news: watch::Sender<News>,
}

impl Shown {
    /// This one wants previews.
    pub(crate) fn with_previews(mut self) -> Self {
        if let Some(entry) = self.watched.jobs().get_mut(&self.id) {
            entry.viewers += 1;
            entry.switch.set(true);
            self.is_viewer = true;
        }
        self
    }

    /// Set while somebody wants previews.
    pub(crate) fn switch(&self) -> PreviewSwitch {
        self.switch.clone()
    }

    /// From now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    pub(crate) fn note(&self, job: &Job) {
        note_in(&self.news, job);
    }

    /// How far the attempt is.
    pub(crate) fn progress(&self, attempt: u32, progress: Progress) {
        progress_in(&self.news, attempt, progress);
    }

    /// What the attempt has made so far.
    pub(crate) fn preview(&self, attempt: u32, preview: Preview) {
        self.news.send_if_modified(|news| {
            let is_running = news.is_running(attempt);
            if is_running {
                news.preview = Some(Arc::new(preview));
            }
            is_running
        });
    }
}

impl News {
    fn is_running(&self, attempt: u32) -> bool {
        self.state == JobState::Running && self.attempt == attempt
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let mut jobs = self.watched.jobs();
        let Some(entry) = jobs.get_mut(&self.id) else {
            return;
        };
        entry.users -= 1;
        if self.is_viewer {
            entry.viewers -= 1;
            entry.switch.set(entry.viewers > 0);
        }
        if entry.users == 0 {
            jobs.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pentimento_jobs::conformance::sample_job;

    use super::*;

    fn job(state: JobState, attempt: u32) -> Job {
        Job {
            state,
            attempt,
            ..sample_job(JobId::from_u128(1), SystemTime::UNIX_EPOCH)
        }
    }

    #[test]
    fn a_life_has_growing_phases() {
        let life = [
            (JobState::Fetching, 0),
            (JobState::Queued, 0),
            (JobState::Running, 1),
            (JobState::Queued, 1),
            (JobState::Running, 2),
            // A lost lease.
            (JobState::Running, 3),
            (JobState::Failed, 3),
        ];
        let phases = life.map(|(state, attempt)| News::of(state, attempt).phase());
        assert!(phases.is_sorted_by(|a, b| a < b), "{phases:?}");
    }

    #[test]
    fn news_of_an_older_attempt_change_nothing() {
        let watched = Arc::new(Watched::default());
        let shown = watched.enter(JobId::from_u128(1));
        watched.note(&job(JobState::Running, 2));
        let mut seen = shown.subscribe();
        watched.note(&job(JobState::Queued, 1));
        shown.progress(1, Progress { done: 3, total: 4 });
        assert!(!seen.has_changed().unwrap());
        shown.progress(2, Progress { done: 1, total: 4 });
        shown.progress(2, Progress { done: 0, total: 4 });
        let now = seen.borrow_and_update().clone();
        assert_eq!(now.progress, Some(Progress { done: 1, total: 4 }));
        watched.note(&job(JobState::Running, 3));
        assert_eq!(
            seen.borrow_and_update().progress,
            None,
            "another attempt begins anew"
        );
    }

    #[test]
    fn the_switch_is_off_after_the_last_viewer_and_the_entry_with_the_last_user() {
        let watched = Arc::new(Watched::default());
        let attempt = watched.enter(JobId::from_u128(1));
        let switch = attempt.switch();
        let (one, two) = (
            watched.enter(JobId::from_u128(1)).with_previews(),
            watched.enter(JobId::from_u128(1)).with_previews(),
        );
        let reader = watched.enter(JobId::from_u128(1));
        assert!(switch.is_set());
        drop(one);
        assert!(switch.is_set());
        drop(two);
        assert!(!switch.is_set());
        drop((attempt, reader));
        assert_eq!(watched.len(), 0);
    }
}
