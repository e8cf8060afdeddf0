//! Decides what the device does next. A state machine that owns no tensor, channel or clock: time comes in as an
//! argument, and the same calls always give the same plans.
//!
//! Turns are given by the time that acts have taken of the device (`shares.rs`), whatever the act is: to owners first, then
//! among the jobs of one. Who has the turn does its next act, an evaluation together with others of its batch key, who pay
//! their part. Loading a model takes no turn, since it runs elsewhere.
//! Invariant: while a job is inside, `plan` answers `Idle` only when the plan before it is still to be reported or a
//! model is being loaded.

mod costs;
mod fill;
mod job;
#[cfg(test)]
mod loading_tests;
mod memory;
#[cfg(test)]
mod mixed_load_tests;
mod models;
mod outcomes;
mod passes;
#[cfg(test)]
mod properties;
mod shares;
#[cfg(test)]
mod tests;
mod waiting;
#[cfg(test)]
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use pentimento_types::JobId;

use crate::{BatchKey, BatchPolicy, ModelKey};

use self::costs::ForwardCosts;
use self::fill::{Room, fill};
pub use self::job::{ImageId, ImageWork, JobSpec};
use self::job::{JobEntry, Phase, Stage};
use self::memory::MemoryCaps;
use self::models::Models;
use self::passes::Passes;
use self::shares::Shares;
use self::waiting::{View, WaitingLine};

/// What happens next. `Load` and `Unload` are begun and need no report before the next plan; the others take the device,
/// and their outcome must be reported first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing to do.
    Idle,
    /// Begin to load a model, away from the device. `Loaded` or one of the load's failures is reported once it is over.
    Load(ModelKey),
    /// Let go of a model that no job inside needs.
    Unload(ModelKey),
    /// Do the next slice of a job's preparation.
    Prepare(JobId),
    /// Run one evaluation of each of these images in one forward.
    Denoise {
        /// What they have in common.
        key: BatchKey,
        /// At least one.
        images: Vec<ImageId>,
    },
    /// Do the next slice of an image's decoding.
    Finish(ImageId),
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model is in memory.
    Loaded(ModelKey),
    /// The model cannot be loaded.
    LoadFailed(ModelKey),
    /// There is no memory for the model while the others are in use.
    LoadRefused(ModelKey),
    /// A slice of the job's preparation is done, and not the last one.
    PrepareContinues {
        /// The job.
        job: JobId,
        /// Whether the next slice belongs to a pass of the VAE, which holds a large tensor from slice to slice.
        in_pass: bool,
    },
    /// There is no memory to begin the job's preparation while others hold it.
    PrepareRefused(JobId),
    /// The job's images are ready, in the order of their index.
    Prepared {
        /// The job.
        job: JobId,
        /// What they may run with.
        key: BatchKey,
        /// One entry per image.
        images: Vec<ImageWork>,
    },
    /// Each of these has one evaluation less before it.
    Denoised(Vec<ImageId>),
    /// None of these has moved.
    DenoiseFailed {
        /// The images of the plan.
        images: Vec<ImageId>,
        /// How it failed.
        fault: DenoiseFault,
    },
    /// A slice of the image's decoding is done, and not the last one.
    FinishContinues(ImageId),
    /// The image is decoded and delivered.
    Finished(ImageId),
    /// Preparing or finishing failed, which is the job's own fault since it was alone.
    JobFailed(JobId),
}

/// How a forward failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenoiseFault {
    /// An error; the states are as they were.
    Error,
    /// Too little device memory; the states are as they were.
    OutOfMemory,
    /// A panic; the states are torn and have been dropped.
    Panic,
}

/// What a report means for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its images are done; the batcher has forgotten it.
    Finished(JobId),
    /// It cannot go on; the batcher has forgotten it.
    Failed(JobId),
    /// Its states are to be dropped; it will be prepared anew. Images already finished stay finished.
    Restart(JobId),
}

/// Why a job was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmitError {
    /// A job with this id is inside.
    Duplicate,
    /// As many jobs as the policy allows are inside.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Prepare,
    Denoise,
    Finish,
}

/// A job's part in an act.
#[derive(Debug)]
struct Part {
    job: JobId,
    rows: u32,
}

/// The act that is planned and still to be reported.
#[derive(Debug)]
struct Acting {
    since: Instant,
    parts: Vec<Part>,
    /// What its rows have in common, where it is an evaluation.
    forward: Option<BatchKey>,
    is_overdue: bool,
}

/// The decision maker.
#[derive(Debug)]
pub struct Batcher {
    policy: BatchPolicy,
    jobs: BTreeMap<JobId, JobEntry>,
    admitted: u64,
    waiting: WaitingLine,
    models: Models,
    /// Set when a preparation found no memory: none is begun until a job has left.
    memory_full: bool,
    memory: MemoryCaps,
    costs: ForwardCosts,
    shares: Shares,
    passes: Passes,
    acting: Option<Acting>,
    /// Of the latest forward's key.
    rows_wanted: u32,
}

impl Batcher {
    /// A batcher without jobs.
    #[must_use]
    pub fn new(policy: BatchPolicy) -> Self {
        Self {
            policy,
            jobs: BTreeMap::new(),
            admitted: 0,
            waiting: WaitingLine::default(),
            models: Models::new(policy.max_models),
            memory_full: false,
            memory: MemoryCaps::default(),
            costs: ForwardCosts::new(policy.cost_lifetime),
            shares: Shares::default(),
            passes: Passes::default(),
            acting: None,
            rows_wanted: 1,
        }
    }

    /// Takes a job in.
    ///
    /// # Errors
    /// When its id is inside already or the policy's limit is reached.
    pub fn admit(&mut self, spec: JobSpec, now: Instant) -> Result<(), AdmitError> {
        if self.jobs.contains_key(&spec.id) {
            return Err(AdmitError::Duplicate);
        }
        if self.jobs.len() >= self.policy.max_jobs {
            return Err(AdmitError::Full);
        }
        if self.jobs.is_empty() {
            // Nobody has waited, so nobody owes anything.
            self.shares = Shares::default();
        } else {
            self.shares.forget(self.jobs.values());
        }
        let entry = JobEntry::new(spec, self.admitted, now);
        self.admitted += 1;
        self.waiting.push(&entry);
        self.jobs.insert(entry.spec.id, entry);
        Ok(())
    }

    /// Forgets a job in whatever state it is. False when it is not inside.
    ///
    /// The outcome of a plan it was part of may still be reported; what it says of this job is ignored.
    pub fn cancel(&mut self, id: JobId) -> bool {
        self.waiting.remove(id);
        self.passes.end(id);
        self.memory_full = false;
        self.jobs.remove(&id).is_some()
    }

    /// Forgets the jobs whose deadline has come, and names them.
    pub fn expire(&mut self, now: Instant) -> Vec<JobId> {
        let late = |entry: &&JobEntry| entry.spec.deadline.is_some_and(|deadline| deadline <= now);
        let ids: Vec<JobId> = self
            .jobs
            .values()
            .filter(late)
            .map(|entry| entry.spec.id)
            .collect();
        for id in &ids {
            self.cancel(*id);
        }
        ids
    }

    /// Jobs inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no job is inside and no line holds one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.waiting.is_empty() && self.passes.is_empty()
    }

    /// Jobs whose preparation has not begun.
    #[must_use]
    pub fn jobs_waiting(&self) -> usize {
        self.waiting_jobs().count()
    }

    /// Those of them whose model is being loaded.
    #[must_use]
    pub fn jobs_loading(&self) -> usize {
        let is_loading = |entry: &&JobEntry| self.models.is_loading(&entry.spec.model);
        self.waiting_jobs().filter(is_loading).count()
    }

    fn waiting_jobs(&self) -> impl Iterator<Item = &JobEntry> {
        let jobs = self.jobs.values();
        jobs.filter(|entry| matches!(entry.stage, Stage::Waiting))
    }

    /// Rows of all images that have evaluations before them.
    #[must_use]
    pub fn rows_to_denoise(&self) -> u32 {
        self.jobs.values().map(JobEntry::rows_to_denoise).sum()
    }

    /// The most rows that are worth having for a forward such as the latest one, as far as has been measured; 1 before the
    /// first. More would only wait, where another device could have them.
    #[must_use]
    pub const fn rows_wanted(&self) -> u32 {
        self.rows_wanted
    }

    /// The next thing to do, where every forward has room.
    pub fn plan(&mut self, now: Instant) -> Plan {
        self.plan_within(now, &mut |images| images.len())
    }

    /// The next thing to do. `fits` says how many of the images of a forward, from the first on, the device has memory for; it
    /// is asked before the forward is planned.
    pub fn plan_within(&mut self, now: Instant, fits: &mut dyn FnMut(&[ImageId]) -> usize) -> Plan {
        if let Some(plan) = self.plan_models(now) {
            return plan;
        }
        self.plan_act(now, fits).unwrap_or(Plan::Idle)
    }

    /// What takes no time of the device.
    fn plan_models(&mut self, now: Instant) -> Option<Plan> {
        if let Some(model) = self.waiting.next_to_unload(self.view(now)) {
            self.models.give_back(&model);
            return Some(Plan::Unload(model));
        }
        let model = self.waiting.next_to_load(self.view(now))?;
        self.models.start_loading(model.clone());
        Some(Plan::Load(model))
    }

    const fn view(&self, now: Instant) -> View<'_> {
        View {
            jobs: &self.jobs,
            models: &self.models,
            policy: &self.policy,
            now,
        }
    }

    /// The next act of whoever has the turn.
    fn plan_act(&mut self, now: Instant, fits: &mut dyn FnMut(&[ImageId]) -> usize) -> Option<Plan> {
        let may_begin = if self.memory_full {
            Vec::new()
        } else {
            self.waiting.may_begin(self.view(now))
        };
        let can_act = |entry: &&JobEntry| match entry.stage {
            Stage::Waiting => may_begin.contains(&entry.spec.id),
            Stage::Preparing { .. } | Stage::Running { .. } => next_act(entry).is_some(),
        };
        let entries: Vec<&JobEntry> = self.jobs.values().filter(can_act).collect();
        let (chosen, is_overdue) = self.shares.choose(&entries, self.policy.age_bound, now)?;
        let mut job = chosen.spec.id;
        if needs_pass(chosen) && !self.passes.admit(job, chosen.spec.latent.pixels()) {
            // It waits for the end of that pass, so that is what its turn is for.
            job = self.passes.last()?;
        }
        let entry = self.jobs.get(&job)?;
        let pixels = entry.spec.latent.pixels();
        let act = next_act(entry)?;
        if needs_pass(entry) {
            self.passes.hold(job, pixels);
        }
        let alone = Part { job, rows: 1 };
        let (plan, parts) = match act {
            Act::Prepare => (self.plan_prepare(job)?, vec![alone]),
            Act::Finish => (self.plan_finish(job)?, vec![alone]),
            Act::Denoise => self.plan_denoise(job, now, fits)?,
        };
        let forward = match &plan {
            Plan::Denoise { key, images: _ } => Some(key.clone()),
            Plan::Idle | Plan::Load(_) | Plan::Unload(_) | Plan::Prepare(_) | Plan::Finish(_) => None,
        };
        self.acting = Some(Acting {
            since: now,
            parts,
            forward,
            is_overdue,
        });
        Some(plan)
    }

    fn plan_prepare(&mut self, job: JobId) -> Option<Plan> {
        let entry = self.jobs.get_mut(&job)?;
        if matches!(entry.stage, Stage::Waiting) {
            entry.stage = Stage::Preparing { in_pass: false };
            self.waiting.take(job);
        }
        Some(Plan::Prepare(job))
    }

    fn plan_denoise(
        &mut self,
        job: JobId,
        now: Instant,
        fits: &mut dyn FnMut(&[ImageId]) -> usize,
    ) -> Option<(Plan, Vec<Part>)> {
        let first = self.jobs.get(&job)?;
        let key = first.key()?.clone();
        let cap = self.memory.rows(&key, now).unwrap_or(u32::MAX);
        let worth = self.costs.rows(&key, now);
        let room = Room {
            rows: cap.min(worth.pay.unwrap_or(u32::MAX)).min(self.policy.max_rows),
            cost: self.policy.compute_budget,
            cost_per_row: key.latent.pixels(),
        };
        let most = cap.min(self.policy.rows_per_forward(key.latent));
        self.rows_wanted = worth.to_have.min(most).max(1);
        let mut load = fill(first, &self.jobs, &self.shares, room).images;
        let ids: Vec<ImageId> = load.iter().map(|(id, _)| *id).collect();
        let fitting = fits(&ids).max(1);
        if fitting < load.len() {
            load.truncate(fitting);
            let rows = load.iter().map(|(_, rows)| rows).sum();
            let until = now + self.policy.memory_cap_lifetime;
            self.memory.put(key.clone(), rows, until);
        }
        let mut images = Vec::with_capacity(load.len());
        let mut parts: Vec<Part> = Vec::new();
        for (id, rows) in load {
            let entry = self.jobs.get_mut(&id.job)?;
            entry.image_mut(id.index)?.phase = Phase::Denoising;
            images.push(id);
            match parts.iter_mut().find(|part| part.job == id.job) {
                Some(part) => part.rows += rows,
                None => parts.push(Part { job: id.job, rows }),
            }
        }
        Some((Plan::Denoise { key, images }, parts))
    }

    fn plan_finish(&mut self, job: JobId) -> Option<Plan> {
        let entry = self.jobs.get(&job)?;
        let first_in = |phase| entry.in_phase(phase).next().map(|(id, _)| id);
        let id = first_in(Phase::Finishing).or_else(|| first_in(Phase::ToFinish))?;
        self.set_phase(id, Phase::Finishing);
        Some(Plan::Finish(id))
    }

    fn set_phase(&mut self, id: ImageId, phase: Phase) {
        if let Some(image) = self
            .jobs
            .get_mut(&id.job)
            .and_then(|entry| entry.image_mut(id.index))
        {
            image.phase = phase;
        }
    }
}

/// What a job would do in its turn. None when it has nothing to do on the device now.
fn next_act(entry: &JobEntry) -> Option<Act> {
    match entry.stage {
        Stage::Waiting | Stage::Preparing { .. } => Some(Act::Prepare),
        Stage::Running { .. } if entry.has(Phase::Finishing) || entry.has(Phase::ToFinish) => {
            Some(Act::Finish)
        }
        Stage::Running { .. } => entry.has(Phase::Ready).then_some(Act::Denoise),
    }
}

/// Whether that begins or goes on with a pass of the VAE.
fn needs_pass(entry: &JobEntry) -> bool {
    match entry.stage {
        Stage::Waiting => false,
        Stage::Preparing { in_pass } => in_pass,
        Stage::Running { .. } => next_act(entry) == Some(Act::Finish),
    }
}
