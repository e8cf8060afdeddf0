//! How far running jobs are, and how long the others will wait: in memory only, since a durable write for every evaluation
//! would cost more than it tells.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_types::{ApiKeyId, Clock, Job, JobId, Progress};

use crate::device_time::DeviceTime;
use crate::forecast::{Expected, Forecast, Standing};

/// The latest word of every attempt that is running in this process, and what all jobs are expected to take.
#[derive(Debug)]
pub(crate) struct ProgressHub {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<JobId, Progress>,
    /// Of jobs that run on other machines, as far as has been heard.
    elsewhere: HashMap<JobId, Progress>,
    forecast: Forecast,
}

impl ProgressHub {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// A job of this owner will run.
    pub(crate) fn expect(&self, id: JobId, owner: ApiKeyId, expected: Expected) {
        self.state().forecast.expect(id, owner, expected);
    }

    /// A job that an earlier process has accepted will run; nothing changes where it is known.
    pub(crate) fn expect_found(&self, job: &Job) {
        let mut state = self.state();
        if !state.forecast.knows(job.id) {
            let expected = DeviceTime::found(job);
            state.forecast.expect(job.id, job.owner.clone(), expected);
        }
    }

    /// The job has ended.
    pub(crate) fn forget(&self, id: JobId) {
        let mut state = self.state();
        state.elsewhere.remove(&id);
        state.forecast.forget(id);
    }

    /// An attempt at a job begins, on whichever machine.
    pub(crate) fn note_elsewhere(&self, job: &Job) {
        let mut state = self.state();
        if !state.running.contains_key(&job.id) {
            state.elsewhere.insert(job.id, Progress::default());
        }
    }

    /// How far one is that runs on another machine. Of jobs of which no record has been heard nothing is kept.
    pub(crate) fn heard(&self, id: JobId, progress: Progress) {
        if let Some(known) = self.state().elsewhere.get_mut(&id)
            && known.done <= progress.done
        {
            *known = progress;
        }
    }

    /// The jobs for which there is a forecast.
    pub(crate) fn known(&self) -> HashSet<JobId> {
        self.state().forecast.known().collect()
    }

    /// Whether a job has been forecast and has not ended, as far as this process has heard.
    pub(crate) fn knows(&self, id: JobId) -> bool {
        self.state().forecast.knows(id)
    }

    /// Forgets the jobs for which this does not hold.
    pub(crate) fn retain(&self, open: impl Fn(JobId) -> bool) {
        let mut state = self.state();
        state.elsewhere.retain(|id, _| open(*id));
        state.forecast.retain(open);
    }

    /// An attempt at this job begins; when what is returned is dropped, nothing is known of it any more.
    pub(crate) fn begin(&self, id: JobId) -> Reporter<'_> {
        let mut state = self.state();
        state.elsewhere.remove(&id);
        state.running.insert(id, Progress::default());
        drop(state);
        Reporter { hub: self, id }
    }

    /// As [`Forecast::time_left`].
    pub(crate) fn time_left(&self, id: JobId) -> Option<Duration> {
        self.state().forecast.time_left(id)
    }

    /// As [`Forecast::position`].
    pub(crate) fn position(&self, id: JobId) -> Option<usize> {
        self.state().forecast.position(id)
    }

    /// As [`Forecast::standings`].
    pub(crate) fn standings(&self, ids: &[JobId]) -> Vec<Standing> {
        self.state().forecast.standings(ids)
    }

    /// As [`Forecast::queue_time`].
    pub(crate) fn queue_time(&self) -> Duration {
        self.state().forecast.queue_time()
    }

    pub(crate) fn get(&self, id: JobId) -> Option<Progress> {
        let state = self.state();
        state
            .running
            .get(&id)
            .or_else(|| state.elsewhere.get(&id))
            .copied()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one attempt reports through.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    hub: &'a ProgressHub,
    id: JobId,
}

impl Reporter<'_> {
    /// The device begins with the job.
    pub(crate) fn started(&self) {
        self.hub.state().forecast.started(self.id, self.hub.clock.now());
    }

    pub(crate) fn report(&self, progress: Progress) {
        let now = self.hub.clock.now();
        let mut state = self.hub.state();
        state.running.insert(self.id, progress);
        state.forecast.evaluated(self.id, progress.done, now);
    }

    /// The device is done with one more image.
    pub(crate) fn finished_image(&self) {
        self.hub.state().forecast.finished(self.id, self.hub.clock.now());
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.running.remove(&self.id);
        state.forecast.stopped(self.id);
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::SystemClock;

    use super::*;

    #[test]
    fn an_attempt_is_known_while_it_runs() {
        let (hub, id) = (ProgressHub::new(Arc::new(SystemClock)), JobId::from_u128(1));
        assert_eq!(hub.get(id), None);
        let reporter = hub.begin(id);
        assert_eq!(hub.get(id), Some(Progress::default()));
        reporter.report(Progress { done: 1, total: 4 });
        assert_eq!(hub.get(id), Some(Progress { done: 1, total: 4 }));
        drop(reporter);
        assert_eq!(hub.get(id), None);
    }

    #[test]
    fn what_is_heard_of_other_machines_counts_until_the_job_is_here_or_has_ended() {
        let (hub, id) = (ProgressHub::new(Arc::new(SystemClock)), JobId::from_u128(1));
        hub.heard(id, Progress { done: 1, total: 4 });
        assert_eq!(hub.get(id), None, "nobody has told of the job itself");
        let job = pentimento_jobs::conformance::sample_job(id, std::time::SystemTime::UNIX_EPOCH);
        hub.note_elsewhere(&job);
        hub.heard(id, Progress { done: 3, total: 4 });
        hub.heard(id, Progress { done: 2, total: 4 });
        assert_eq!(
            hub.get(id),
            Some(Progress { done: 3, total: 4 }),
            "late news is none"
        );
        drop(hub.begin(id));
        assert_eq!(hub.get(id), None);
        hub.note_elsewhere(&job);
        hub.forget(id);
        assert_eq!(hub.get(id), None);
    }
}
