//! Decides what the device does next. A state machine that owns no tensor, channel or clock: time comes in as an
//! argument, and the same calls always give the same plans.
//!
//! The three acts take turns: after a denoise comes a finish or a prepare when there is one, and the other way round, so
//! neither VAE work nor denoising waits for more than two turns of the others. A turn of preparation is a few slices of
//! one job. Loading a model takes no turn, since it runs elsewhere.
//! Invariant: while a job is inside, `plan` answers `Idle` only when the plan before it is still to be reported or a
//! model is being loaded.

mod fill;
mod job;
mod lanes;
#[cfg(test)]
mod loading_tests;
mod memory;
mod models;
mod outcomes;
mod preparing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod waiting;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use pentimento_types::JobId;

use crate::{BatchKey, BatchPolicy, ModelKey};

use self::fill::{Room, fill};
pub use self::job::{ImageId, ImageWork, JobSpec};
use self::job::{JobEntry, Phase, Stage};
use self::lanes::Lanes;
use self::memory::MemoryCaps;
use self::models::Models;
use self::preparing::Preparing;
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
    /// Decode one image.
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
    PrepareContinues(JobId),
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

impl Act {
    /// The order in which acts are tried after this one.
    const fn then(self) -> [Self; 3] {
        match self {
            Self::Prepare => [Self::Denoise, Self::Finish, Self::Prepare],
            Self::Denoise => [Self::Finish, Self::Prepare, Self::Denoise],
            Self::Finish => [Self::Prepare, Self::Denoise, Self::Finish],
        }
    }
}

/// The decision maker.
#[derive(Debug)]
pub struct Batcher {
    policy: BatchPolicy,
    jobs: BTreeMap<JobId, JobEntry>,
    admitted: u64,
    waiting: WaitingLine,
    models: Models,
    preparing: Preparing,
    /// Set when a preparation found no memory: none is begun until a job has left.
    memory_full: bool,
    lanes: Lanes,
    /// Jobs with an image to decode, one image per turn.
    finishing: VecDeque<JobId>,
    memory: MemoryCaps,
    last: Act,
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
            preparing: Preparing::default(),
            memory_full: false,
            lanes: Lanes::default(),
            finishing: VecDeque::new(),
            memory: MemoryCaps::default(),
            last: Act::Finish,
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
        self.preparing.remove(id);
        self.lanes.remove(id);
        self.finishing.retain(|job| *job != id);
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
        let in_line = self.waiting.is_empty() && self.preparing.is_empty();
        let prepared = self.lanes.is_empty() && self.finishing.is_empty();
        self.jobs.is_empty() && in_line && prepared
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

    /// The next thing to do.
    pub fn plan(&mut self, now: Instant) -> Plan {
        if let Some(plan) = self.plan_models(now) {
            return plan;
        }
        if self.last == Act::Prepare
            && let Some(job) = self.preparing.go_on(&self.policy)
        {
            return Plan::Prepare(job);
        }
        for act in self.last.then() {
            let plan = match act {
                Act::Prepare => self.plan_prepare(now),
                Act::Denoise => self.plan_denoise(now),
                Act::Finish => self.plan_finish(),
            };
            if let Some(plan) = plan {
                self.last = act;
                return plan;
            }
        }
        Plan::Idle
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

    fn plan_prepare(&mut self, now: Instant) -> Option<Plan> {
        let view = View {
            jobs: &self.jobs,
            models: &self.models,
            policy: &self.policy,
            now,
        };
        let waiting = &mut self.waiting;
        let may_begin = !self.memory_full;
        let begin = || if may_begin { waiting.take(view) } else { None };
        let id = self.preparing.start_turn(begin)?;
        self.jobs.get_mut(&id)?.stage = Stage::Preparing;
        Some(Plan::Prepare(id))
    }

    fn plan_denoise(&mut self, now: Instant) -> Option<Plan> {
        let lane = self.lanes.choose(&self.policy, now)?;
        let key = lane.key().clone();
        let room = Room {
            rows: self
                .memory
                .rows(&key, now)
                .unwrap_or(u32::MAX)
                .min(self.policy.max_rows),
            cost: self.policy.compute_budget,
            cost_per_row: key.latent.pixels(),
        };
        let turn: Vec<JobId> = lane.jobs().collect();
        let load = fill(&turn, &self.jobs, room);
        lane.charge(load.cost, &self.policy);
        for id in &load.images {
            self.set_phase(*id, Phase::Denoising);
        }
        Some(Plan::Denoise {
            key,
            images: load.images,
        })
    }

    fn plan_finish(&mut self) -> Option<Plan> {
        let job = self.finishing.pop_front()?;
        let (id, _) = self.jobs.get(&job)?.in_phase(Phase::ToFinish).next()?;
        self.set_phase(id, Phase::Finishing);
        if self.jobs.get(&job)?.has(Phase::ToFinish) {
            self.finishing.push_back(job);
        }
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
