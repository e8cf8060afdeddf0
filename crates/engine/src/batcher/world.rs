//! A device of numbers for the batcher's tests: carries out plans, keeps its own books, and compares.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pentimento_types::{Clock, JobId, SystemClock};

use crate::{
    BatchKey, BatchPolicy, Batcher, DenoiseFault, ExtraInputs, JobSpec, LatentSize, ModelKey, Outcome,
    PictureId, PictureWork, Plan, Verdict,
};

/// What goes wrong with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    PrepareFails,
    ErrorAt(u32),
    PanicAt(u32),
    FinishFails,
}

/// One job of a test.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) model: u8,
    pub(super) side: u32,
    pub(super) context_tokens: u32,
    pub(super) pictures: u32,
    pub(super) work: PictureWork,
    pub(super) trouble: Trouble,
}

impl Script {
    /// A 512x512 LCM job: one picture, four evaluations, no guidance.
    pub(super) const fn lcm() -> Self {
        Self {
            model: 0,
            side: 64,
            context_tokens: 77,
            pictures: 1,
            work: PictureWork {
                evaluations: 4,
                rows: 1,
            },
            trouble: Trouble::None,
        }
    }

    pub(super) fn key(&self) -> BatchKey {
        BatchKey {
            model: ModelKey::checkpoint(&format!("model {}", self.model)),
            latent: LatentSize {
                height: self.side,
                width: self.side,
            },
            context_tokens: self.context_tokens,
            extra_inputs: ExtraInputs::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Failed,
    Cancelled,
}

/// The books of one job.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) script: Script,
    pub(super) admitted: Duration,
    pub(super) ended: Option<(End, Duration)>,
    pub(super) prepares: u32,
    pub(super) restarts: u32,
    /// Evaluations of each picture since the last preparation.
    pub(super) evaluations: Vec<u32>,
    pub(super) finishes: Vec<u32>,
    last_served: (u64, Duration),
}

/// Cost of one row of a 512x512 picture; one millisecond of the world's time.
const UNIT: u64 = 64 * 64;

pub(super) struct World {
    pub(super) batcher: Batcher,
    pub(super) policy: BatchPolicy,
    pub(super) ledgers: BTreeMap<JobId, Ledger>,
    /// Rows of a forward beyond which the device is out of memory.
    pub(super) memory_rows: u32,
    pub(super) ticks: u64,
    pub(super) elapsed: Duration,
    pub(super) longest_wait: (u64, Duration),
    pub(super) longest_act: Duration,
    pub(super) model_switches: u32,
    pub(super) plans: Vec<Plan>,
    epoch: Instant,
    last_model: Option<u8>,
}

impl World {
    pub(super) fn new(policy: BatchPolicy) -> Self {
        Self {
            batcher: Batcher::new(policy),
            policy,
            ledgers: BTreeMap::new(),
            memory_rows: u32::MAX,
            ticks: 0,
            elapsed: Duration::ZERO,
            longest_wait: (0, Duration::ZERO),
            longest_act: Duration::ZERO,
            model_switches: 0,
            plans: Vec::new(),
            epoch: SystemClock.now(),
            last_model: None,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.epoch + self.elapsed
    }

    pub(super) fn admit(&mut self, id: u128, script: Script) -> JobId {
        let id = JobId::from_u128(id);
        let key = script.key();
        let spec = JobSpec {
            id,
            model: key.model,
            latent: key.latent,
            deadline: None,
        };
        self.batcher
            .admit(spec, self.now())
            .expect("the test admits few jobs, each once");
        let pictures = script.pictures as usize;
        let ledger = Ledger {
            script,
            admitted: self.elapsed,
            ended: None,
            prepares: 0,
            restarts: 0,
            evaluations: vec![0; pictures],
            finishes: vec![0; pictures],
            last_served: (self.ticks, self.elapsed),
        };
        self.ledgers.insert(id, ledger);
        id
    }

    pub(super) fn cancel(&mut self, id: JobId) {
        let inside = self.ledgers[&id].ended.is_none();
        assert_eq!(self.batcher.cancel(id), inside, "cancel knows who is inside");
        if inside {
            self.end(id, End::Cancelled);
        }
    }

    fn end(&mut self, id: JobId, end: End) {
        let at = self.elapsed;
        let ledger = self.ledgers.get_mut(&id).expect("every job has a ledger");
        assert!(ledger.ended.replace((end, at)).is_none(), "a job ends once");
    }

    /// Plans, checks the plan and carries it out. False when the batcher is idle.
    pub(super) fn tick(&mut self) -> bool {
        let plan = self.batcher.plan(self.now());
        let outcome = match &plan {
            Plan::Idle => {
                let open = self
                    .ledgers
                    .values()
                    .filter(|ledger| ledger.ended.is_none())
                    .count();
                assert_eq!(open, 0, "idle while jobs are inside");
                return false;
            }
            Plan::Prepare(job) => self.prepare(*job),
            Plan::Denoise { key, pictures } => self.denoise(key, pictures),
            Plan::Finish(id) => self.finish(*id),
        };
        self.plans.push(plan);
        self.ticks += 1;
        for verdict in self.batcher.report(outcome, self.now()) {
            match verdict {
                Verdict::Finished(job) => self.end(job, End::Finished),
                Verdict::Failed(job) => self.end(job, End::Failed),
                Verdict::Restart(job) => self.restart(job),
            }
        }
        true
    }

    pub(super) fn run(&mut self) {
        while self.tick() {
            assert!(self.ticks < 1_000_000, "the jobs never end");
        }
        assert!(self.batcher.is_empty());
    }

    fn spend(&mut self, units: u64) {
        let act = Duration::from_micros(1 + units * 1000 / UNIT);
        self.longest_act = self.longest_act.max(act);
        self.elapsed += act;
    }

    fn serve(&mut self, job: JobId) {
        let (ticks, elapsed) = (self.ticks, self.elapsed);
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        assert_eq!(ledger.ended, None, "a job that has ended is planned");
        let (last_ticks, last_elapsed) = ledger.last_served;
        ledger.last_served = (ticks, elapsed);
        self.longest_wait.0 = self.longest_wait.0.max(ticks - last_ticks);
        self.longest_wait.1 = self.longest_wait.1.max(elapsed - last_elapsed);
        let model = Some(ledger.script.model);
        self.model_switches += u32::from(self.last_model != model);
        self.last_model = model;
    }

    fn prepare(&mut self, job: JobId) -> Outcome {
        self.serve(job);
        let open = self
            .ledgers
            .values()
            .filter(|ledger| ledger.ended.is_none() && ledger.prepares > ledger.restarts);
        let mut models: Vec<u8> = open.map(|ledger| ledger.script.model).collect();
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        models.push(ledger.script.model);
        models.sort_unstable();
        models.dedup();
        assert!(models.len() <= self.policy.max_models, "too many models in use");
        ledger.prepares += 1;
        assert_eq!(ledger.prepares, 1 + ledger.restarts, "prepared once per start");
        let script = ledger.script.clone();
        self.spend(2 * script.key().latent.pixels());
        if script.trouble == Trouble::PrepareFails {
            return Outcome::JobFailed(job);
        }
        Outcome::Prepared {
            job,
            key: script.key(),
            pictures: vec![script.work; script.pictures as usize],
        }
    }

    fn denoise(&mut self, key: &BatchKey, pictures: &[PictureId]) -> Outcome {
        assert!(!pictures.is_empty());
        let mut rows = 0;
        let mut fault = None;
        for (at, id) in pictures.iter().enumerate() {
            assert!(!pictures[..at].contains(id), "a picture is twice in a forward");
            let ledger = &self.ledgers[&id.job];
            let script = &ledger.script;
            assert_eq!(script.key(), *key, "batch keys are mixed");
            let done = ledger.evaluations[id.index as usize];
            assert!(done < script.work.evaluations, "an evaluation too many");
            assert_eq!(
                ledger.finishes[id.index as usize], 0,
                "evaluated after it was finished"
            );
            rows += script.work.rows;
            if script.trouble == Trouble::ErrorAt(done) {
                fault = fault.or(Some(DenoiseFault::Error));
            } else if script.trouble == Trouble::PanicAt(done) {
                fault = Some(DenoiseFault::Panic);
            }
        }
        let cost = u64::from(rows) * key.latent.pixels();
        if pictures.len() > 1 {
            assert!(rows <= self.policy.max_rows, "more rows than a forward may have");
            assert!(cost <= self.policy.compute_budget, "dearer than a forward may be");
        }
        self.spend(cost);
        if rows > self.memory_rows {
            fault = Some(DenoiseFault::OutOfMemory);
        }
        for id in pictures {
            self.serve(id.job);
            if fault.is_none() {
                let ledger = self.ledgers.get_mut(&id.job).expect("every job has a ledger");
                ledger.evaluations[id.index as usize] += 1;
            }
        }
        let pictures = pictures.to_vec();
        match fault {
            None => Outcome::Denoised(pictures),
            Some(fault) => Outcome::DenoiseFailed { pictures, fault },
        }
    }

    fn finish(&mut self, id: PictureId) -> Outcome {
        self.serve(id.job);
        let ledger = self.ledgers.get_mut(&id.job).expect("every job has a ledger");
        let at = id.index as usize;
        assert_eq!(
            ledger.evaluations[at], ledger.script.work.evaluations,
            "finished too early"
        );
        let script = ledger.script.clone();
        if script.trouble == Trouble::FinishFails {
            return Outcome::JobFailed(id.job);
        }
        ledger.finishes[at] += 1;
        assert_eq!(ledger.finishes[at], 1, "a picture is finished once");
        self.spend(3 * script.key().latent.pixels());
        Outcome::Finished(id)
    }

    fn restart(&mut self, job: JobId) {
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        ledger.restarts += 1;
        assert_eq!(ledger.restarts, 1, "a job is started anew once at most");
        for (evaluations, finishes) in ledger.evaluations.iter_mut().zip(&ledger.finishes) {
            if *finishes == 0 {
                *evaluations = 0;
            }
        }
    }

    /// How long the job took, in the world's time.
    pub(super) fn latency(&self, id: JobId) -> Duration {
        let ledger = &self.ledgers[&id];
        ledger.ended.expect("the job has ended").1 - ledger.admitted
    }
}
