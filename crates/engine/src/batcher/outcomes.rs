//! What the outcome of a plan means for the jobs that were part of it.

use std::time::Instant;

use pentimento_types::JobId;

use super::job::{ImageWork, JobEntry, Phase, Sharing, Stage};
use super::{Batcher, DenoiseFault, ImageId, Outcome, Verdict};
use crate::{BatchKey, ModelKey};

impl Batcher {
    /// Takes in what became of the last plan, and says which jobs that ends or starts anew.
    pub fn report(&mut self, outcome: Outcome, now: Instant) -> Vec<Verdict> {
        match outcome {
            Outcome::Loaded(model) => self.loaded(&model, now),
            Outcome::LoadFailed(model) => self.load_failed(&model),
            Outcome::LoadRefused(model) => self.load_refused(&model),
            Outcome::PrepareContinues(job) => self.prepare_continues(job),
            Outcome::PrepareRefused(job) => self.prepare_refused(job),
            Outcome::Prepared { job, key, images } => self.prepared(job, key, &images, now),
            Outcome::Denoised(images) => self.denoised(&images, now),
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

    fn prepare_continues(&mut self, job: JobId) -> Vec<Verdict> {
        if self.is_preparing(job) {
            self.preparing.goes_on(job);
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
        entry.is_some_and(|entry| matches!(entry.stage, Stage::Preparing))
    }

    fn prepared(&mut self, job: JobId, key: BatchKey, work: &[ImageWork], now: Instant) -> Vec<Verdict> {
        let Some(entry) = self
            .jobs
            .get_mut(&job)
            .filter(|entry| matches!(entry.stage, Stage::Preparing))
        else {
            return Vec::new();
        };
        entry.start_running(key.clone(), work);
        if entry.has(Phase::Ready) {
            self.lanes.push(&key, job, &self.policy, now);
        }
        if entry.has(Phase::ToFinish) {
            self.finishing.push_back(job);
        }
        self.end_when_done(job)
    }

    fn denoised(&mut self, images: &[ImageId], now: Instant) -> Vec<Verdict> {
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
            let left = image.evaluations_left;
            image.phase = if left == 0 { Phase::ToFinish } else { Phase::Ready };
            if entry.sharing == Sharing::SoloOnce {
                entry.sharing = Sharing::Shared;
            }
            if left == 0 && !self.finishing.contains(&id.job) {
                self.finishing.push_back(id.job);
            }
        }
        for job in jobs_of(images) {
            let Some(entry) = self.jobs.get(&job) else {
                continue;
            };
            let Some(key) = entry.key().filter(|_| entry.has(Phase::Ready)).cloned() else {
                self.lanes.remove(job);
                continue;
            };
            // Behind those who have waited longer.
            self.lanes.remove(job);
            self.lanes.push(&key, job, &self.policy, now);
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
        self.lanes.remove(job);
        self.finishing.retain(|other| *other != job);
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
