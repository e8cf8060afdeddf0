//! What the outcome of a plan means for the jobs that were part of it.

use std::time::Instant;

use pentimento_types::JobId;

use super::job::{ImageWork, JobEntry, Phase, Sharing, Stage};
use super::shares::weight;
use super::{Batcher, DenoiseFault, ImageId, Outcome, Part, Verdict};
use crate::{BatchKey, ModelKey};

impl Batcher {
    /// Takes in what became of the last plan, and says which jobs that ends or starts anew.
    pub fn report(&mut self, outcome: Outcome, now: Instant) -> Vec<Verdict> {
        self.charge(&outcome, now);
        match outcome {
            Outcome::Loaded(model) => self.loaded(&model, now),
            Outcome::LoadFailed(model) => self.load_failed(&model),
            Outcome::LoadRefused(model) => self.load_refused(&model),
            Outcome::PrepareContinues { job, in_pass } => self.prepare_continues(job, in_pass),
            Outcome::PrepareRefused(job) => self.prepare_refused(job),
            Outcome::Prepared { job, key, images } => self.prepared(job, key, &images),
            Outcome::Denoised(images) => self.denoised(&images),
            Outcome::FinishContinues(_) => Vec::new(),
            Outcome::DenoiseFailed { images, fault } => self.denoise_failed(&images, fault, now),
            Outcome::Finished(id) => self.finished(id),
            Outcome::JobFailed(job) => self.fail(job).into_iter().collect(),
        }
    }

    fn loaded(&mut self, model: &ModelKey, now: Instant) -> Vec<Verdict> {
        self.models.loaded(model, now);
        Vec::new()
    }

    /// Everybody who waits for the model gets the same answer.
    fn load_failed(&mut self, model: &ModelKey) -> Vec<Verdict> {
        if !self.models.is_loading(model) {
            return Vec::new();
        }
        self.models.give_back(model);
        let jobs = self.waiting.jobs_of(model).into_iter();
        jobs.filter_map(|job| self.fail(job)).collect()
    }

    fn load_refused(&mut self, model: &ModelKey) -> Vec<Verdict> {
        if !self.models.is_loading(model) {
            return Vec::new();
        }
        if self.models.refuse(model) {
            return Vec::new();
        }
        let jobs = self.waiting.jobs_of(model).into_iter();
        jobs.filter_map(|job| self.fail(job)).collect()
    }

    /// Puts down what the act that is over has taken, for everybody who had a part in it.
    fn charge(&mut self, outcome: &Outcome, now: Instant) {
        let Some(acting) = self.acting.take() else { return };
        // Time in which the process stood still is not held against anybody for long.
        let took = now
            .saturating_duration_since(acting.since)
            .min(self.policy.age_bound);
        let all: u32 = acting.parts.iter().map(|part| part.rows).sum();
        if let (Outcome::Denoised(_), Some(key)) = (outcome, acting.forward) {
            self.costs.put(key, all, took, now);
        }
        for Part { job, rows } in &acting.parts {
            let share = took * *rows / all.max(1);
            let weight = self.weight_of(*job);
            if let Some(entry) = self.jobs.get_mut(job) {
                self.shares.charge(entry, share, weight, now);
            }
        }
        if acting.is_overdue {
            self.shares.charge_overdue(took);
        }
    }

    /// How much an act of the job counts among those of its owner.
    fn weight_of(&self, job: JobId) -> f64 {
        let Some(JobEntry { spec, .. }) = self.jobs.get(&job) else {
            return 1.0;
        };
        let own = self.jobs.values().filter(|entry| entry.spec.owner == spec.owner);
        let known = own.map(|entry| entry.spec.work).filter(|work| *work > 0);
        weight(spec, known.min().unwrap_or(spec.work))
    }

    fn prepare_continues(&mut self, job: JobId, in_pass: bool) -> Vec<Verdict> {
        if !in_pass {
            self.passes.end(job);
        }
        if let Some(entry) = self.jobs.get_mut(&job)
            && let Stage::Preparing { in_pass: next } = &mut entry.stage
        {
            *next = in_pass;
        }
        Vec::new()
    }

    /// Back into the line, unless nobody else could give memory back.
    fn prepare_refused(&mut self, job: JobId) -> Vec<Verdict> {
        if !self.is_preparing(job) {
            return Vec::new();
        }
        let mut others = self.jobs.values().filter(|entry| entry.spec.id != job);
        if !others.any(JobEntry::holds_model) {
            return self.fail(job).into_iter().collect();
        }
        self.memory_full = true;
        if let Some(entry) = self.jobs.get_mut(&job) {
            entry.stage = Stage::Waiting;
            self.waiting.push_first(entry);
        }
        Vec::new()
    }

    fn is_preparing(&self, job: JobId) -> bool {
        let entry = self.jobs.get(&job);
        entry.is_some_and(|entry| matches!(entry.stage, Stage::Preparing { .. }))
    }

    fn prepared(&mut self, job: JobId, key: BatchKey, work: &[ImageWork]) -> Vec<Verdict> {
        self.passes.end(job);
        if self.is_preparing(job)
            && let Some(entry) = self.jobs.get_mut(&job)
        {
            entry.start_running(key, work);
        }
        self.end_when_done(job)
    }

    fn denoised(&mut self, images: &[ImageId]) -> Vec<Verdict> {
        for id in images {
            let Some(entry) = self.jobs.get_mut(&id.job) else {
                continue;
            };
            let Some(image) = entry.image_mut(id.index) else {
                continue;
            };
            if image.phase != Phase::Denoising {
                continue;
            }
            image.evaluations_left = image.evaluations_left.saturating_sub(1);
            let is_done = image.evaluations_left == 0;
            image.phase = if is_done { Phase::ToFinish } else { Phase::Ready };
            if entry.sharing == Sharing::SoloOnce {
                entry.sharing = Sharing::Shared;
            }
        }
        Vec::new()
    }

    fn denoise_failed(&mut self, images: &[ImageId], fault: DenoiseFault, now: Instant) -> Vec<Verdict> {
        for id in images {
            self.set_phase(*id, Phase::Ready);
        }
        let jobs = jobs_of(images);
        let in_company = jobs.len() > 1;
        match fault {
            DenoiseFault::OutOfMemory if images.len() > 1 => {
                self.halve_forwards(images, now);
                Vec::new()
            }
            DenoiseFault::Error if in_company => {
                for job in jobs {
                    if let Some(entry) = self.jobs.get_mut(&job)
                        && entry.sharing == Sharing::Shared
                    {
                        entry.sharing = Sharing::SoloOnce;
                    }
                }
                Vec::new()
            }
            DenoiseFault::Panic if in_company => {
                jobs.into_iter().filter_map(|job| self.restart(job)).collect()
            }
            DenoiseFault::Error | DenoiseFault::OutOfMemory | DenoiseFault::Panic => {
                jobs.into_iter().filter_map(|job| self.fail(job)).collect()
            }
        }
    }

    fn halve_forwards(&mut self, images: &[ImageId], now: Instant) {
        let entry_of = |id: &ImageId| self.jobs.get(&id.job);
        let Some(key) = images.iter().find_map(|id| entry_of(id)?.key()).cloned() else {
            return;
        };
        let rows_of = |id: &ImageId| Some(entry_of(id)?.images().get(id.index as usize)?.rows);
        let rows: u32 = images.iter().filter_map(rows_of).sum();
        self.memory
            .put(key, rows / 2, now + self.policy.memory_cap_lifetime);
    }

    fn finished(&mut self, id: ImageId) -> Vec<Verdict> {
        let image = self
            .jobs
            .get_mut(&id.job)
            .and_then(|entry| entry.image_mut(id.index));
        if let Some(image) = image.filter(|image| image.phase == Phase::Finishing) {
            image.phase = Phase::Done;
            self.passes.end(id.job);
        }
        self.end_when_done(id.job)
    }

    fn end_when_done(&mut self, job: JobId) -> Vec<Verdict> {
        let done = self.jobs.get(&job).is_some_and(JobEntry::is_done);
        let ended = done && self.cancel(job);
        ended.then_some(Verdict::Finished(job)).into_iter().collect()
    }

    fn fail(&mut self, job: JobId) -> Option<Verdict> {
        self.cancel(job).then_some(Verdict::Failed(job))
    }

    fn restart(&mut self, job: JobId) -> Option<Verdict> {
        self.passes.end(job);
        self.memory_full = false;
        let entry = self.jobs.get_mut(&job)?;
        entry.start_anew();
        self.waiting.push_first(entry);
        Some(Verdict::Restart(job))
    }
}

/// The jobs of a forward, each once, in the order of its images.
fn jobs_of(images: &[ImageId]) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = Vec::with_capacity(images.len());
    for id in images {
        if !jobs.contains(&id.job) {
            jobs.push(id.job);
        }
    }
    jobs
}
