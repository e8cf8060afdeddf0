//! A device of numbers for the batcher's tests: carries out plans, keeps its own books, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, Clock, JobId, Priority, SystemClock};

use crate::{
    BatchKey, BatchPolicy, Batcher, ConditioningShape, DenoiseFault, ImageId, ImageWork, JobSpec, LatentSize,
    ModelKey, Outcome, Plan, ProgramsId, Verdict,
};

/// What goes wrong with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// In the last slice.
    PrepareFails,
    ErrorAt(u32),
    PanicAt(u32),
    FinishFails,
}

/// One job of a test.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) owner: u8,
    pub(super) model: u8,
    pub(super) side: u32,
    pub(super) context_tokens: usize,
    pub(super) images: u32,
    /// Slices of its preparation, at least 1. All but the first and the last are a pass of the VAE.
    pub(super) slices: u32,
    /// Slices of the decoding of an image, at least 1.
    pub(super) finish_slices: u32,
    pub(super) work: ImageWork,
    pub(super) priority: Priority,
    pub(super) trouble: Trouble,
}

impl Script {
    /// A 512x512 LCM job: one image, four evaluations, no guidance.
    pub(super) const fn lcm() -> Self {
        Self {
            owner: 0,
            model: 0,
            side: 64,
            context_tokens: 77,
            images: 1,
            slices: 1,
            finish_slices: 1,
            work: ImageWork {
                evaluations: 4,
                rows: 1,
            },
            priority: Priority::Normal,
            trouble: Trouble::None,
        }
    }

    /// About what it takes of the device.
    pub(super) fn units(&self) -> u64 {
        let image = u64::from(self.work.rows) * u64::from(self.work.evaluations) + 1;
        u64::from(self.side).pow(2) * (1 + u64::from(self.images) * image)
    }

    pub(super) fn key(&self) -> BatchKey {
        BatchKey {
            model: model_key(self.model),
            programs: ProgramsId::default(),
            latent: LatentSize {
                height: self.side,
                width: self.side,
            },
            conditioning: ConditioningShape::of_text(self.context_tokens),
        }
    }
}

pub(super) fn model_key(number: u8) -> ModelKey {
    ModelKey::checkpoint(&format!("model {number}"))
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
    /// Slices done since the last start.
    pub(super) slices: u32,
    pub(super) restarts: u32,
    /// Evaluations of each image since the last preparation.
    pub(super) evaluations: Vec<u32>,
    pub(super) finishes: Vec<u32>,
    /// Slices of the decoding that is under way.
    decoded_slices: u32,
    /// What the device has done for it.
    pub(super) device_time: Duration,
    last_served: (u64, Duration),
}

impl Ledger {
    fn is_in_pass(&self) -> bool {
        // The pass of an encoding has begun with the second slice, and ends with the last but one.
        let encodes = self.slices > 1 && self.slices + 1 < self.script.slices;
        encodes || self.decoded_slices > 0
    }
}

/// Cost of one row of a 512x512 image; one millisecond of the world's time.
const UNIT: u64 = 64 * 64;

pub(super) struct World {
    pub(super) batcher: Batcher,
    pub(super) policy: BatchPolicy,
    /// Whether jobs say at their admission how large they are.
    pub(super) knows_work: bool,
    pub(super) ledgers: BTreeMap<JobId, Ledger>,
    /// Rows of a forward beyond which the device is out of memory.
    pub(super) memory_rows: u32,
    /// Images that the device says it has room for in a forward.
    pub(super) known_room: usize,
    /// How long a load takes.
    pub(super) load_time: Duration,
    /// Models that fit into memory; one counts as its size says.
    pub(super) model_room: usize,
    /// Models that are larger than one.
    pub(super) model_sizes: BTreeMap<ModelKey, usize>,
    /// Jobs whose states fit into memory.
    pub(super) state_room: usize,
    /// Models that cannot be loaded.
    pub(super) broken_models: BTreeSet<ModelKey>,
    /// Loads begun, in order.
    pub(super) loads: Vec<ModelKey>,
    /// Loads under way, and when they end.
    loading: Vec<(Duration, ModelKey)>,
    /// Models that are loaded and not let go.
    held: BTreeSet<ModelKey>,
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
            knows_work: true,
            ledgers: BTreeMap::new(),
            memory_rows: u32::MAX,
            known_room: usize::MAX,
            load_time: Duration::ZERO,
            model_room: usize::MAX,
            model_sizes: BTreeMap::new(),
            state_room: usize::MAX,
            broken_models: BTreeSet::new(),
            loads: Vec::new(),
            loading: Vec::new(),
            held: BTreeSet::new(),
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
            owner: ApiKeyId::new(format!("owner {}", script.owner)),
            work: if self.knows_work { script.units() } else { 0 },
            priority: script.priority,
            ..JobSpec::new(id, key.model, key.latent)
        };
        self.batcher
            .admit(spec, self.now())
            .expect("the test admits few jobs, each once");
        let images = script.images as usize;
        let ledger = Ledger {
            script,
            admitted: self.elapsed,
            ended: None,
            prepares: 0,
            slices: 0,
            restarts: 0,
            evaluations: vec![0; images],
            finishes: vec![0; images],
            decoded_slices: 0,
            device_time: Duration::ZERO,
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

    /// Plans, checks the plan and carries it out, the loads that take no time with it. False when the batcher is idle.
    pub(super) fn tick(&mut self) -> bool {
        let plan = loop {
            self.end_loads();
            let (now, room) = (self.now(), self.known_room);
            match self
                .batcher
                .plan_within(now, &mut |images| images.len().min(room))
            {
                Plan::Load(model) => self.load(model),
                Plan::Unload(model) => self.unload(&model),
                Plan::Idle if !self.loading.is_empty() => {
                    let next = self.loading.iter().map(|(due, _)| *due).min();
                    self.elapsed = self.elapsed.max(next.expect("it is not empty"));
                }
                Plan::Idle => {
                    let mut ledgers = self.ledgers.values();
                    assert!(
                        ledgers.all(|ledger| ledger.ended.is_some()),
                        "idle while jobs are inside"
                    );
                    return false;
                }
                plan @ (Plan::Prepare(_) | Plan::Denoise { .. } | Plan::Finish(_)) => break plan,
            }
        };
        let outcome = match &plan {
            Plan::Prepare(job) => Some(self.prepare(*job)),
            Plan::Denoise { key, images } => Some(self.denoise(key, images)),
            Plan::Finish(id) => Some(self.finish(*id)),
            Plan::Idle | Plan::Load(_) | Plan::Unload(_) => None,
        };
        self.plans.push(plan);
        self.ticks += 1;
        self.report(outcome.expect("the other plans are carried out above"));
        true
    }

    fn report(&mut self, outcome: Outcome) {
        for verdict in self.batcher.report(outcome, self.now()) {
            match verdict {
                Verdict::Finished(job) => self.end(job, End::Finished),
                Verdict::Failed(job) => self.end(job, End::Failed),
                Verdict::Restart(job) => self.restart(job),
            }
        }
    }

    fn load(&mut self, model: ModelKey) {
        assert!(!self.held.contains(&model), "loaded twice");
        assert!(
            self.loading.iter().all(|(_, other)| *other != model),
            "a hundred jobs cause one load"
        );
        let places = self.held.len() + self.loading.len();
        assert!(places < self.policy.max_models, "too many models in use");
        self.loads.push(model.clone());
        self.loading.push((self.elapsed + self.load_time, model));
    }

    fn unload(&mut self, model: &ModelKey) {
        assert!(self.held.remove(model), "only what is loaded is let go");
        let runs = |ledger: &Ledger| ledger.ended.is_none() && ledger.slices > 0;
        let mut running = self.ledgers.values().filter(|ledger| runs(ledger));
        assert!(
            running.all(|ledger| model_key(ledger.script.model) != *model),
            "a model is let go under a job"
        );
    }

    fn size_of(&self, model: &ModelKey) -> usize {
        self.model_sizes.get(model).copied().unwrap_or(1)
    }

    fn size_of_held(&self) -> usize {
        self.held.iter().map(|model| self.size_of(model)).sum()
    }

    fn end_loads(&mut self) {
        while let Some(at) = self.loading.iter().position(|(due, _)| *due <= self.elapsed) {
            let (_, model) = self.loading.remove(at);
            let outcome = if self.broken_models.contains(&model) {
                Outcome::LoadFailed(model)
            } else if !self.held.is_empty() && self.size_of_held() + self.size_of(&model) > self.model_room {
                Outcome::LoadRefused(model)
            } else {
                self.held.insert(model.clone());
                Outcome::Loaded(model)
            };
            self.report(outcome);
        }
    }

    pub(super) fn run(&mut self) {
        while self.tick() {
            assert!(self.ticks < 1_000_000, "the jobs never end");
        }
        assert!(self.batcher.is_empty());
        assert!(self.held.is_empty(), "models are let go with their last job");
    }

    fn spend(&mut self, units: u64) -> Duration {
        let act = Duration::from_micros(1 + units * 1000 / UNIT);
        self.longest_act = self.longest_act.max(act);
        self.elapsed += act;
        act
    }

    fn spend_for(&mut self, job: JobId, units: u64) {
        let act = self.spend(units);
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        ledger.device_time += act;
    }

    /// The large tensors that are held between slices: each at most half as large as another.
    fn check_passes(&self) {
        let open = self
            .ledgers
            .values()
            .filter(|ledger| ledger.ended.is_none() && ledger.is_in_pass());
        let mut pixels: Vec<u64> = open.map(|ledger| ledger.script.key().latent.pixels()).collect();
        pixels.sort_unstable();
        assert!(
            pixels.windows(2).all(|pair| 2 * pair[0] <= pair[1]),
            "too many large tensors: {pixels:?}"
        );
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
        let holds = |ledger: &&Ledger| ledger.ended.is_none() && ledger.slices > 0;
        let holders = self.ledgers.values().filter(holds).count();
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        let script = ledger.script.clone();
        assert!(
            self.held.contains(&model_key(script.model)),
            "prepared before its model is loaded"
        );
        if ledger.slices == 0 && holders >= self.state_room {
            return Outcome::PrepareRefused(job);
        }
        if ledger.slices == 0 {
            ledger.prepares += 1;
            assert_eq!(ledger.prepares, 1 + ledger.restarts, "prepared once per start");
        }
        ledger.slices += 1;
        let left = script
            .slices
            .checked_sub(ledger.slices)
            .expect("a slice too many");
        self.spend_for(job, 2 * script.key().latent.pixels() / u64::from(script.slices));
        self.check_passes();
        if left > 0 {
            let in_pass = left > 1;
            return Outcome::PrepareContinues { job, in_pass };
        }
        if script.trouble == Trouble::PrepareFails {
            return Outcome::JobFailed(job);
        }
        Outcome::Prepared {
            job,
            key: script.key(),
            images: vec![script.work; script.images as usize],
        }
    }

    fn denoise(&mut self, key: &BatchKey, images: &[ImageId]) -> Outcome {
        assert!(!images.is_empty());
        let mut rows = 0;
        let mut fault = None;
        for (at, id) in images.iter().enumerate() {
            assert!(!images[..at].contains(id), "an image is twice in a forward");
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
        if images.len() > 1 {
            assert!(rows <= self.policy.max_rows, "more rows than a forward may have");
            assert!(cost <= self.policy.compute_budget, "dearer than a forward may be");
        }
        let act = self.spend(cost);
        if rows > self.memory_rows {
            fault = Some(DenoiseFault::OutOfMemory);
        }
        for id in images {
            self.serve(id.job);
            let ledger = self.ledgers.get_mut(&id.job).expect("every job has a ledger");
            ledger.device_time += act * ledger.script.work.rows / rows;
            if fault.is_none() {
                ledger.evaluations[id.index as usize] += 1;
            }
        }
        let images = images.to_vec();
        match fault {
            None => Outcome::Denoised(images),
            Some(fault) => Outcome::DenoiseFailed { images, fault },
        }
    }

    fn finish(&mut self, id: ImageId) -> Outcome {
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
        assert_eq!(ledger.finishes[at], 0, "an image is finished once");
        ledger.decoded_slices += 1;
        let is_last = ledger.decoded_slices == script.finish_slices;
        if is_last {
            ledger.decoded_slices = 0;
            ledger.finishes[at] = 1;
        }
        let pixels = script.key().latent.pixels();
        self.spend_for(id.job, 3 * pixels / u64::from(script.finish_slices));
        self.check_passes();
        if is_last {
            Outcome::Finished(id)
        } else {
            Outcome::FinishContinues(id)
        }
    }

    fn restart(&mut self, job: JobId) {
        let ledger = self.ledgers.get_mut(&job).expect("every job has a ledger");
        ledger.restarts += 1;
        ledger.slices = 0;
        ledger.decoded_slices = 0;
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
