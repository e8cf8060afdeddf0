//! Decides what the device does next. A state machine that owns no tensor, channel or clock: time comes in as an
//! argument, and the same calls always give the same plans.
//!
//! The three acts take turns: after a denoise comes a finish or a prepare when there is one, and the other way round, so
//! neither VAE work nor denoising waits for more than two ticks of the others.
//! Invariant: while a job is inside, `plan` never answers `Idle` unless the plan before it is still to be reported.

mod fill;
mod job;
mod lanes;
mod memory;
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

use crate::{BatchKey, BatchPolicy};

use self::fill::{Room, fill};
use self::job::{Company, JobEntry, Phase, Stage};
pub use self::job::{JobSpec, PictureId, PictureWork};
use self::lanes::Lanes;
use self::memory::MemoryCaps;
use self::waiting::WaitingLine;

/// What the device does next. Its outcome must be reported before the next plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing to do.
    Idle,
    /// Make the states of a job's pictures.
    Prepare(JobId),
    /// Run one evaluation of each of these pictures in one forward.
    Denoise {
        /// What they have in common.
        key: BatchKey,
        /// At least one.
        pictures: Vec<PictureId>,
    },
    /// Decode one picture.
    Finish(PictureId),
}

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The job's pictures are ready, in the order of their index.
    Prepared {
        /// The job.
        job: JobId,
        /// What they may run with.
        key: BatchKey,
        /// One entry per picture.
        pictures: Vec<PictureWork>,
    },
    /// Each of these has one evaluation less before it.
    Denoised(Vec<PictureId>),
    /// None of these has moved.
    DenoiseFailed {
        /// The pictures of the plan.
        pictures: Vec<PictureId>,
        /// How it failed.
        fault: DenoiseFault,
    },
    /// The picture is decoded and delivered.
    Finished(PictureId),
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
    /// All its pictures are done; the batcher has forgotten it.
    Finished(JobId),
    /// It cannot go on; the batcher has forgotten it.
    Failed(JobId),
    /// Its states are to be dropped; it will be prepared anew. Pictures already finished stay finished.
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
    lanes: Lanes,
    /// Jobs with a picture to decode, one picture per turn.
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
        self.lanes.remove(id);
        self.finishing.retain(|job| *job != id);
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
        let lines = self.waiting.is_empty() && self.lanes.is_empty() && self.finishing.is_empty();
        self.jobs.is_empty() && lines
    }

    /// Jobs that are not prepared yet.
    #[must_use]
    pub fn jobs_waiting(&self) -> usize {
        self.jobs.values().filter(|entry| !entry.holds_model()).count()
    }

    /// Rows of all pictures that have evaluations before them.
    #[must_use]
    pub fn rows_to_denoise(&self) -> u32 {
        self.jobs.values().map(JobEntry::rows_to_denoise).sum()
    }

    /// The next thing to do.
    pub fn plan(&mut self, now: Instant) -> Plan {
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

    fn plan_prepare(&mut self, now: Instant) -> Option<Plan> {
        let id = self.waiting.take(&self.jobs, &self.policy, now)?;
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
        for id in &load.pictures {
            self.set_phase(*id, Phase::Denoising);
        }
        Some(Plan::Denoise {
            key,
            pictures: load.pictures,
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

    fn set_phase(&mut self, id: PictureId, phase: Phase) {
        if let Some(picture) = self
            .jobs
            .get_mut(&id.job)
            .and_then(|entry| entry.picture_mut(id.index))
        {
            picture.phase = phase;
        }
    }

    /// Takes in what became of the last plan, and says which jobs that ends or starts anew.
    pub fn report(&mut self, outcome: Outcome, now: Instant) -> Vec<Verdict> {
        match outcome {
            Outcome::Prepared { job, key, pictures } => self.prepared(job, key, &pictures, now),
            Outcome::Denoised(pictures) => self.denoised(&pictures, now),
            Outcome::DenoiseFailed { pictures, fault } => self.denoise_failed(&pictures, fault, now),
            Outcome::Finished(id) => self.finished(id),
            Outcome::JobFailed(job) => self.fail(job).into_iter().collect(),
        }
    }

    fn prepared(&mut self, job: JobId, key: BatchKey, work: &[PictureWork], now: Instant) -> Vec<Verdict> {
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

    fn denoised(&mut self, pictures: &[PictureId], now: Instant) -> Vec<Verdict> {
        for id in pictures {
            let Some(entry) = self.jobs.get_mut(&id.job) else {
                continue;
            };
            let Some(picture) = entry.picture_mut(id.index) else {
                continue;
            };
            if picture.phase != Phase::Denoising {
                continue;
            }
            picture.evaluations_left = picture.evaluations_left.saturating_sub(1);
            let left = picture.evaluations_left;
            picture.phase = if left == 0 { Phase::ToFinish } else { Phase::Ready };
            if entry.company == Company::AloneOnce {
                entry.company = Company::Welcome;
            }
            if left == 0 && !self.finishing.contains(&id.job) {
                self.finishing.push_back(id.job);
            }
        }
        for job in jobs_of(pictures) {
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

    fn denoise_failed(&mut self, pictures: &[PictureId], fault: DenoiseFault, now: Instant) -> Vec<Verdict> {
        for id in pictures {
            self.set_phase(*id, Phase::Ready);
        }
        let jobs = jobs_of(pictures);
        let in_company = jobs.len() > 1;
        match fault {
            DenoiseFault::OutOfMemory if pictures.len() > 1 => {
                self.halve_forwards(pictures, now);
                Vec::new()
            }
            DenoiseFault::Error if in_company => {
                for job in jobs {
                    if let Some(entry) = self.jobs.get_mut(&job)
                        && entry.company == Company::Welcome
                    {
                        entry.company = Company::AloneOnce;
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

    fn halve_forwards(&mut self, pictures: &[PictureId], now: Instant) {
        let entry_of = |id: &PictureId| self.jobs.get(&id.job);
        let Some(key) = pictures.iter().find_map(|id| entry_of(id)?.key()).cloned() else {
            return;
        };
        let rows_of = |id: &PictureId| Some(entry_of(id)?.pictures().get(id.index as usize)?.rows);
        let rows: u32 = pictures.iter().filter_map(rows_of).sum();
        self.memory
            .put(key, rows / 2, now + self.policy.memory_cap_lifetime);
    }

    fn finished(&mut self, id: PictureId) -> Vec<Verdict> {
        let picture = self
            .jobs
            .get_mut(&id.job)
            .and_then(|entry| entry.picture_mut(id.index));
        if let Some(picture) = picture.filter(|picture| picture.phase == Phase::Finishing) {
            picture.phase = Phase::Done;
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
        let entry = self.jobs.get_mut(&job)?;
        entry.start_anew();
        self.waiting.push_first(entry);
        Some(Verdict::Restart(job))
    }
}

/// The jobs of a forward, each once, in the order of its pictures.
fn jobs_of(pictures: &[PictureId]) -> Vec<JobId> {
    let mut jobs: Vec<JobId> = Vec::with_capacity(pictures.len());
    for id in pictures {
        if !jobs.contains(&id.job) {
            jobs.push(id.job);
        }
    }
    jobs
}
