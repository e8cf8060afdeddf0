//! The three acts: one guarded call of the executor each, and what its outcome means for the jobs.

use std::panic::{self, AssertUnwindSafe};

use pentimento_types::JobId;

use super::DeviceThread;
use super::running::RunningOn;
use crate::batcher::{DenoiseFault, ImageId, Outcome, Verdict};
use crate::{BatchKey, EngineError, Executor, ExecutorError, FinishStep, JobEvent, PrepareStep};

impl<E: Executor> DeviceThread<E> {
    pub(super) fn prepare(&mut self, job: JobId) {
        let Some(running) = self.running.get_mut(&job) else {
            return;
        };
        running.note_start();
        let expected = running.input.recipe.image_count;
        let mut preparation = running.preparation.take();
        let executor = &mut self.executor;
        let began = self.clock.now();
        let result = guarded("prepare", || {
            if preparation.is_none() {
                let model = self.models.get(&running.input.model_key());
                let model = model.expect("the batcher prepares jobs whose model is ready");
                preparation = Some(executor.begin(&running.input, model)?);
            }
            let preparation = preparation.as_mut().expect("it was begun above");
            executor.advance(preparation)
        });
        let took = self.clock.now().saturating_duration_since(began);
        self.metrics.prepared(took);
        self.neighbours.worked(took);
        if running.vae.encodes {
            running.vae.encoding += took;
        }
        let (outcome, error) = match result {
            Ok(PrepareStep::Continue { in_pass }) => {
                running.vae.encodes = in_pass;
                running.preparation = preparation;
                (Outcome::PrepareContinues { job, in_pass }, None)
            }
            Ok(PrepareStep::Done(prepared)) => {
                drop(preparation);
                if !running.vae.encoding.is_zero() {
                    self.metrics.encoded(std::mem::take(&mut running.vae.encoding));
                }
                let found = prepared.images.len();
                if u32::try_from(found) == Ok(expected) {
                    (running.fill(job, prepared), None)
                } else {
                    let error = EngineError::ImageCount { expected, found };
                    (Outcome::JobFailed(job), Some(error))
                }
            }
            Err(error) => {
                drop_torn(preparation);
                let outcome = if has_to_wait(&error) {
                    Outcome::PrepareRefused(job)
                } else {
                    Outcome::JobFailed(job)
                };
                (outcome, Some(error))
            }
        };
        self.report(outcome, error);
    }

    pub(super) fn denoise(&mut self, key: &BatchKey, images: Vec<ImageId>) {
        let mut states = Vec::with_capacity(images.len());
        let mut row_count = 0;
        for id in &images {
            row_count += self
                .running
                .get(&id.job)
                .map_or(0, |running| running.rows(id.index));
            states.extend(
                self.running
                    .get_mut(&id.job)
                    .and_then(|running| running.take(id.index)),
            );
        }
        debug_assert_eq!(
            states.len(),
            images.len(),
            "the batcher plans images that have a state"
        );
        let mut rows: Vec<&mut E::State> = states.iter_mut().collect();
        let began = self.clock.now();
        let result = guarded("denoise", || self.executor.denoise(&mut rows));
        let took = self.clock.now().saturating_duration_since(began);
        let first = images.first().and_then(|id| self.running.get(&id.job));
        let input = first.map(|running| &running.input);
        self.metrics.evaluated(key, input, (row_count, took));
        let mut inputs = images
            .iter()
            .filter_map(|id| Some(&self.running.get(&id.job)?.input));
        if input.is_some_and(|first| inputs.any(|other| !other.has_loras_of(first))) {
            self.metrics.mixed_sets();
        }
        self.neighbours.worked(took);
        let (outcome, error) = match result {
            Ok(()) => {
                self.put_back(&images, states);
                self.note_evaluations(&images);
                self.show(&images);
                (Outcome::Denoised(images), None)
            }
            Err(error) => {
                let fault = fault_of(&error);
                if fault == DenoiseFault::Panic {
                    drop_torn(states);
                } else {
                    self.put_back(&images, states);
                }
                tracing::warn!(?key, images = images.len(), ?fault, "a forward failed");
                (Outcome::DenoiseFailed { images, fault }, Some(error))
            }
        };
        self.report(outcome, error);
    }

    pub(super) fn finish(&mut self, id: ImageId) {
        let Some(running) = self.running.get_mut(&id.job) else {
            return;
        };
        let mut finishing = running.finishing.take();
        let state = match &finishing {
            None => running.take(id.index),
            Some(_) => None,
        };
        let has_begun = finishing.is_some() || state.is_some();
        debug_assert!(has_begun, "the batcher finishes images that have a state");
        let executor = &mut self.executor;
        let began = self.clock.now();
        let result = guarded("finish", || {
            if let Some(state) = state {
                finishing = Some(executor.begin_finish(state)?);
            }
            let finishing = finishing
                .as_mut()
                .expect("the batcher finishes images that have a state");
            executor.advance_finish(finishing)
        });
        let took = self.clock.now().saturating_duration_since(began);
        self.metrics.finished(took);
        self.neighbours.worked(took);
        running.vae.decoding += took;
        let (outcome, error) = match result {
            Ok(FinishStep::Continue) => {
                running.finishing = finishing;
                (Outcome::FinishContinues(id), None)
            }
            Ok(FinishStep::Done(finished)) => {
                drop(finishing);
                self.metrics.decoded(std::mem::take(&mut running.vae.decoding));
                running.deliver(id.index, finished);
                (Outcome::Finished(id), None)
            }
            Err(error) => {
                drop_torn(finishing);
                (Outcome::JobFailed(id.job), Some(error))
            }
        };
        self.report(outcome, error);
    }

    fn put_back(&mut self, images: &[ImageId], states: Vec<E::State>) {
        for (id, state) in images.iter().zip(states) {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.put_back(id.index, state);
            }
        }
    }

    fn note_evaluations(&mut self, images: &[ImageId]) {
        for id in images {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.note_evaluation(id.index);
            }
        }
        for id in images {
            if let Some(running) = self.running.get_mut(&id.job) {
                running.send_progress();
            }
        }
    }

    /// Shows the jobs whose callers look at them one of the images that have just had an evaluation.
    fn show(&mut self, images: &[ImageId]) {
        let now = self.clock.now();
        for ImageId { job, .. } in images {
            let Some(running) = self
                .running
                .get_mut(job)
                .filter(|running| running.wants_preview(now))
            else {
                continue;
            };
            let of_job = images.iter().filter(|image| image.job == *job);
            let Some((index, state)) = running.next_to_show(of_job.map(|image| image.index)) else {
                continue;
            };
            // Nobody loses an image because it could not be shown.
            let preview = guarded("preview", || Ok(self.executor.preview(state)));
            running.show(index, preview.unwrap_or_default(), now);
        }
    }

    /// Tells the batcher, and carries out what it says. `error` is the reason of every failure it decides.
    pub(super) fn report(&mut self, outcome: Outcome, error: Option<EngineError>) {
        if let Some(EngineError::Executor(ExecutorError::DeviceLost { .. })) = &error {
            self.lost = true;
            // Before anybody's job ends with it.
            self.publish_loss();
        }
        let reason = error.unwrap_or(EngineError::Stopped);
        let acting = if self.lost {
            self.jobs_of(&outcome)
        } else {
            Vec::new()
        };
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
            for job in acting {
                self.batcher.cancel(job);
                self.end(job, JobEvent::Failed(reason.clone()));
            }
            // The others had no part in it, and are told what they would be told at any other end.
            self.end_all(&EngineError::ShuttingDown);
        }
    }

    /// The jobs that had a part in what was done.
    fn jobs_of(&self, outcome: &Outcome) -> Vec<JobId> {
        match outcome {
            Outcome::JobFailed(job)
            | Outcome::PrepareRefused(job)
            | Outcome::PrepareContinues { job, .. }
            | Outcome::Prepared { job, .. } => vec![*job],
            Outcome::FinishContinues(image) | Outcome::Finished(image) => vec![image.job],
            Outcome::Denoised(images) | Outcome::DenoiseFailed { images, .. } => {
                images.iter().map(|image| image.job).collect()
            }
            Outcome::Loaded(model) | Outcome::LoadFailed(model) | Outcome::LoadRefused(model) => {
                let waits = |running: &RunningOn<E>| running.input.model_key() == *model;
                let jobs = self.running.iter().filter(|(_, running)| waits(running));
                jobs.map(|(job, _)| *job).collect()
            }
        }
    }
}

/// Whether the job's preparation may begin once others have given memory back.
fn has_to_wait(error: &EngineError) -> bool {
    matches!(error, EngineError::Executor(ExecutorError::MemoryFull(full)) if !full.is_hopeless())
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

/// What is torn may panic when it is dropped, too.
fn drop_torn<S>(states: impl IntoIterator<Item = S>) {
    for state in states {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(state)));
    }
}
