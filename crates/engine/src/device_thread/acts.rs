//! The three acts: one guarded call of the executor each, and what its outcome means for the jobs.

use std::panic::{self, AssertUnwindSafe};

use pentimento_types::JobId;

use super::DeviceThread;
use crate::batcher::{DenoiseFault, Outcome, PictureId, PictureWork, Verdict};
use crate::{BatchKey, EngineError, Executor, ExecutorError, JobEvent};

impl<E: Executor> DeviceThread<E> {
    pub(super) fn prepare(&mut self, job: JobId) {
        let Some(running) = self.running.get_mut(&job) else {
            return;
        };
        let input = running.input.clone();
        let expected = input.recipe.image_count;
        let result = guarded("prepare", || self.executor.prepare(&input)).and_then(|prepared| {
            let found = prepared.pictures.len();
            let as_asked = u32::try_from(found) == Ok(expected);
            as_asked
                .then_some(prepared)
                .ok_or(EngineError::PictureCount { expected, found })
        });
        let (outcome, error) = match result {
            Ok(prepared) => {
                let work = prepared.pictures.iter().map(|picture| PictureWork {
                    evaluations: picture.evaluations,
                    rows: picture.rows,
                });
                let pictures = work.collect();
                running.fill(prepared.pictures);
                (
                    Outcome::Prepared {
                        job,
                        key: prepared.key,
                        pictures,
                    },
                    None,
                )
            }
            Err(error) => (Outcome::JobFailed(job), Some(error)),
        };
        self.report(outcome, error);
    }

    pub(super) fn denoise(&mut self, key: &BatchKey, pictures: Vec<PictureId>) {
        let mut states = Vec::with_capacity(pictures.len());
        for id in &pictures {
            states.extend(
                self.running
                    .get_mut(&id.job)
                    .and_then(|running| running.take(id.index)),
            );
        }
        debug_assert_eq!(
            states.len(),
            pictures.len(),
            "the batcher plans pictures that have a state"
        );
        let mut rows: Vec<&mut E::State> = states.iter_mut().collect();
        let result = guarded("denoise", || self.executor.denoise(&mut rows));
        let (outcome, error) = match result {
            Ok(()) => {
                self.put_back(&pictures, states);
                self.note_evaluations(&pictures);
                (Outcome::Denoised(pictures), None)
            }
            Err(error) => {
                let fault = fault_of(&error);
                if fault == DenoiseFault::Panic {
                    drop_torn(states);
                } else {
                    self.put_back(&pictures, states);
                }
                tracing::warn!(?key, pictures = pictures.len(), ?fault, "a forward failed");
                (Outcome::DenoiseFailed { pictures, fault }, Some(error))
            }
        };
        self.report(outcome, error);
    }

    pub(super) fn finish(&mut self, id: PictureId) {
        let state = self
            .running
            .get_mut(&id.job)
            .and_then(|running| running.take(id.index));
        debug_assert!(state.is_some(), "the batcher finishes pictures that have a state");
        let Some(state) = state else {
            self.report(
                Outcome::JobFailed(id.job),
                Some(EngineError::Panicked { act: "finish" }),
            );
            return;
        };
        let (outcome, error) = match guarded("finish", || self.executor.finish(state)) {
            Ok(finished) => {
                if let Some(running) = self.running.get_mut(&id.job) {
                    running.deliver(id.index, finished);
                }
                (Outcome::Finished(id), None)
            }
            Err(error) => (Outcome::JobFailed(id.job), Some(error)),
        };
        self.report(outcome, error);
    }

    fn put_back(&mut self, pictures: &[PictureId], states: Vec<E::State>) {
        for (id, state) in pictures.iter().zip(states) {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.put_back(id.index, state);
            }
        }
    }

    fn note_evaluations(&mut self, pictures: &[PictureId]) {
        for id in pictures {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.note_evaluation(id.index);
            }
        }
        for id in pictures {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.send_progress();
            }
        }
    }

    /// Tells the batcher, and carries out what it says. `error` is the reason of every failure it decides.
    fn report(&mut self, outcome: Outcome, error: Option<EngineError>) {
        if let Some(EngineError::Executor(ExecutorError::DeviceLost { .. })) = &error {
            self.lost = true;
        }
        let reason = error.unwrap_or(EngineError::Stopped);
        for verdict in self.batcher.report(outcome, self.clock.now()) {
            match verdict {
                Verdict::Finished(job) => self.end(job, JobEvent::Finished),
                Verdict::Failed(job) => self.end(job, JobEvent::Failed(reason.clone())),
                Verdict::Restart(job) => {
                    if let Some(running) = self.running.get_mut(&job) {
                        running.clear();
                    }
                }
            }
        }
        if self.lost {
            self.end_all(&reason);
        }
    }
}

fn fault_of(error: &EngineError) -> DenoiseFault {
    if matches!(error, EngineError::Panicked { .. }) {
        DenoiseFault::Panic
    } else if matches!(
        error,
        EngineError::Executor(ExecutorError::OutOfDeviceMemory { .. })
    ) {
        DenoiseFault::OutOfMemory
    } else {
        DenoiseFault::Error
    }
}

/// Runs one act. The executor promises that a panic does not tear itself; states are the caller's to throw away.
fn guarded<T>(act: &'static str, run: impl FnOnce() -> Result<T, ExecutorError>) -> Result<T, EngineError> {
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(EngineError::from),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            tracing::error!(
                act,
                panic = text.unwrap_or("no text"),
                "an act of the executor panicked"
            );
            Err(EngineError::Panicked { act })
        }
    }
}

/// Torn states may panic when they are dropped, too.
fn drop_torn<S>(states: Vec<S>) {
    for state in states {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(state)));
    }
}
