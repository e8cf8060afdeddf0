//! One run of a simulated cluster: calls arrive, workers take jobs by a policy, load models and compute.
//!
//! Nothing here is random but for a seed, and nothing is timed: the same case gives the same figures on every machine.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use super::draw::{Draw, Popularity};

const SECOND: f64 = 1e9;
/// Of every so many jobs that a worker takes, one may be taken for its age.
const TURN_OF_THE_OLDEST: u32 = 8;

/// What a worker computes with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) name: &'static str,
    /// Seconds of a short job, four steps of LCM.
    pub(super) short: f64,
    /// Of a long one, 31 guided steps.
    pub(super) long: f64,
    /// Until a model that is on the disk is in memory.
    pub(super) load: f64,
    /// Models that have room in memory.
    pub(super) room: usize,
}

impl Device {
    /// The mean of the mixed traffic, without loads.
    pub(super) fn mean(&self) -> f64 {
        self.short.mul_add(SHORT_SHARE, self.long * (1.0 - SHORT_SHARE))
    }
}

/// As in `benches/load/mixed.py`.
pub(super) const SHORT_SHARE: f64 = 0.7;

/// Which job a worker that has nothing to do takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Policy {
    /// The oldest, whatever its model.
    Oldest,
    /// The oldest of the models in memory; without one, the oldest of all.
    Resident,
    /// The same, but one that has waited for longer than these seconds goes first.
    Aged { bound: f64 },
    /// The same, but only every eighth job of a worker is taken for its age.
    AgedInTurn { bound: f64 },
    /// The same, but a worker loads a model for the age of a job only so many seconds after it did so last.
    AgedWithPause { bound: f64, pause: f64 },
}

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) device: Device,
    pub(super) workers: usize,
    /// Calls in a second.
    pub(super) rate: f64,
    pub(super) policy: Policy,
    /// Models that are called, by Zipf's law.
    pub(super) models: usize,
    /// Jobs that may wait; one more is refused.
    pub(super) places: usize,
    /// Calls of the run, of which the first fifth is not counted.
    pub(super) calls: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Jobs done in a second.
    pub(super) served: f64,
    /// Of the calls, those that were refused.
    pub(super) refused: f64,
    /// Seconds from call to picture.
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) longest: f64,
    /// Models loaded for a thousand jobs.
    pub(super) loads: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    at: u64,
    call: usize,
    work: u64,
}

#[derive(Debug, Default)]
struct Worker {
    /// The one used last at the end.
    resident: Vec<usize>,
    taken: u32,
    /// When it last loaded a model for the age of a job.
    for_its_age: Option<u64>,
}

#[derive(Debug)]
struct Cluster {
    case: Case,
    workers: Vec<Worker>,
    waiting: Vec<VecDeque<Job>>,
    /// The first of each model's line.
    heads: BTreeSet<(Job, usize)>,
    in_line: usize,
    idle: Bits,
    holders: Vec<Bits>,
    /// When who will have done which.
    running: BinaryHeap<Reverse<(u64, usize, Job)>>,
    loads: usize,
}

/// Runs a case.
pub(super) fn run(case: Case) -> Outcome {
    let mut cluster = Cluster::new(case);
    let mut draw = Draw::new(7);
    let models = Popularity::zipf(case.models);
    let mut log = Log {
        counted_from: case.calls / 5,
        ..Log::default()
    };
    let (mut now, mut refused) = (0_u64, 0_usize);
    for call in 0..case.calls {
        now += nanoseconds(draw.exponential() / case.rate);
        cluster.finish_until(now, &mut log);
        if call == log.counted_from {
            log.began = Some(now);
            cluster.loads = 0;
        }
        let is_short = draw.unit() < SHORT_SHARE;
        let seconds = if is_short {
            case.device.short
        } else {
            case.device.long
        };
        let job = Job {
            at: now,
            call,
            work: nanoseconds(seconds),
        };
        let model = models.choose(draw.unit());
        if !cluster.arrive(job, model, &mut draw) && call >= log.counted_from {
            refused += 1;
        }
    }
    let (done, loads) = (log.done, cluster.loads);
    // Those in line at the end are seen to their end, or the slow ones would not be counted.
    cluster.finish_until(u64::MAX, &mut log);
    log.spent.sort_unstable();
    Outcome {
        served: done as f64 * SECOND / now.saturating_sub(log.began.unwrap_or(0)).max(1) as f64,
        refused: refused as f64 / (case.calls - log.counted_from) as f64,
        p50: log.share(0.5),
        p95: log.share(0.95),
        longest: log.share(1.0),
        loads: loads as f64 * 1000.0 / done.max(1) as f64,
    }
}

/// What is counted, from the call on with which it begins.
#[derive(Debug, Default)]
struct Log {
    counted_from: usize,
    began: Option<u64>,
    /// Jobs that have ended since.
    done: usize,
    /// Nanoseconds of the jobs that came since.
    spent: Vec<u64>,
}

impl Log {
    fn end(&mut self, job: Job, at: u64) {
        self.done += usize::from(self.began.is_some());
        if job.call >= self.counted_from {
            self.spent.push(at - job.at);
        }
    }

    fn share(&self, share: f64) -> f64 {
        let at = (self.spent.len() as f64 * share) as usize;
        self.spent
            .get(at)
            .or(self.spent.last())
            .map_or(0.0, |time| *time as f64 / SECOND)
    }
}

impl Cluster {
    fn new(case: Case) -> Self {
        let mut idle = Bits::new(case.workers);
        (0..case.workers).for_each(|worker| idle.set(worker));
        Self {
            case,
            workers: (0..case.workers).map(|_| Worker::default()).collect(),
            waiting: vec![VecDeque::new(); case.models],
            heads: BTreeSet::new(),
            in_line: 0,
            idle,
            holders: vec![Bits::new(case.workers); case.models],
            running: BinaryHeap::new(),
            loads: 0,
        }
    }

    /// False where it is refused.
    fn arrive(&mut self, job: Job, model: usize, draw: &mut Draw) -> bool {
        let start = (draw.unit() * self.case.workers as f64) as usize;
        let holder = match self.case.policy {
            Policy::Oldest => None,
            Policy::Resident
            | Policy::Aged { .. }
            | Policy::AgedInTurn { .. }
            | Policy::AgedWithPause { .. } => self.idle.common(&self.holders[model], start),
        };
        if let Some(worker) = holder.or_else(|| self.idle.any(start)) {
            self.begin(worker, job, model, job.at);
            return true;
        }
        if self.in_line >= self.case.places {
            return false;
        }
        if self.waiting[model].is_empty() {
            self.heads.insert((job, model));
        }
        self.waiting[model].push_back(job);
        self.in_line += 1;
        true
    }

    fn finish_until(&mut self, now: u64, log: &mut Log) {
        while let Some(Reverse((at, worker, job))) = self.running.peek().copied() {
            if at > now {
                return;
            }
            self.running.pop();
            log.end(job, at);
            self.idle.set(worker);
            if let Some(model) = self.choose(worker, at) {
                let job = self.take_head(model);
                self.begin(worker, job, model, at);
            }
        }
    }

    /// The model whose first job in line this worker takes.
    fn choose(&mut self, worker: usize, now: u64) -> Option<usize> {
        let (oldest, oldest_model) = *self.heads.first()?;
        let worker = &mut self.workers[worker];
        let is_longer = |since: u64, seconds: f64| (now - since) as f64 > seconds * SECOND;
        let is_old = |bound: f64| is_longer(oldest.at, bound);
        let for_its_age = match self.case.policy {
            Policy::Oldest => true,
            Policy::Resident => false,
            Policy::Aged { bound } => is_old(bound),
            Policy::AgedInTurn { bound } => worker.taken.is_multiple_of(TURN_OF_THE_OLDEST) && is_old(bound),
            Policy::AgedWithPause { bound, pause } => {
                is_old(bound) && worker.for_its_age.is_none_or(|last| is_longer(last, pause))
            }
        };
        if for_its_age {
            if !worker.resident.contains(&oldest_model) {
                worker.for_its_age = Some(now);
            }
            return Some(oldest_model);
        }
        let in_memory = worker.resident.iter();
        let first = in_memory
            .filter_map(|model| self.waiting[*model].front().map(|job| (*job, *model)))
            .min();
        Some(first.map_or(oldest_model, |(_, model)| model))
    }

    fn take_head(&mut self, model: usize) -> Job {
        let line = &mut self.waiting[model];
        let Some(job) = line.pop_front() else {
            return Job {
                at: 0,
                call: 0,
                work: 0,
            };
        };
        self.heads.remove(&(job, model));
        if let Some(next) = line.front() {
            self.heads.insert((*next, model));
        }
        self.in_line -= 1;
        job
    }

    fn begin(&mut self, index: usize, job: Job, model: usize, now: u64) {
        let worker = &mut self.workers[index];
        worker.taken = worker.taken.wrapping_add(1);
        let mut time = job.work;
        if let Some(at) = worker.resident.iter().position(|have| *have == model) {
            worker.resident.remove(at);
        } else {
            self.loads += 1;
            time += nanoseconds(self.case.device.load);
            self.holders[model].set(index);
            if worker.resident.len() == self.case.device.room {
                let evicted = worker.resident.remove(0);
                self.holders[evicted].clear(index);
            }
        }
        worker.resident.push(model);
        self.idle.clear(index);
        self.running.push(Reverse((now + time, index, job)));
    }
}

/// A set of workers.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    /// One of them, looked for from `start` on, so that it is not always the first.
    fn any(&self, start: usize) -> Option<usize> {
        self.find(start, |word| self.0[word])
    }

    fn common(&self, other: &Self, start: usize) -> Option<usize> {
        self.find(start, |word| self.0[word] & other.0[word])
    }

    fn find(&self, start: usize, word: impl Fn(usize) -> u64) -> Option<usize> {
        let words = self.0.len();
        (0..words).map(|step| (start / 64 + step) % words).find_map(|at| {
            let bits = word(at);
            (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)
        })
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Device = Device {
        name: "test",
        short: 0.01,
        long: 0.01,
        load: 0.1,
        room: 2,
    };

    fn case(policy: Policy) -> Case {
        Case {
            device: DEVICE,
            workers: 4,
            rate: 300.0,
            policy,
            models: 8,
            places: 100_000,
            calls: 20_000,
        }
    }

    #[test]
    fn a_cluster_that_is_not_full_serves_what_is_asked_and_refuses_nothing() {
        let outcome = run(Case {
            models: 1,
            ..case(Policy::Oldest)
        });
        assert!((outcome.served / 300.0 - 1.0).abs() < 0.05, "{outcome:?}");
        assert_eq!(
            (outcome.refused, outcome.loads),
            (0.0, 0.0),
            "the one model is in memory everywhere"
        );
    }

    #[test]
    fn one_worker_is_the_queue_of_the_textbook() {
        // M/D/1 at a load of 0.8: the mean time in the system is 1 + 0.8 / (2 * 0.2) = 3 services; the median is below it.
        let outcome = run(Case {
            workers: 1,
            models: 1,
            rate: 80.0,
            calls: 200_000,
            ..case(Policy::Oldest)
        });
        assert!((0.015..0.03).contains(&outcome.p50), "{outcome:?}");
        assert!((0.06..0.09).contains(&outcome.p95), "{outcome:?}");
    }

    #[test]
    fn models_in_memory_are_served_first() {
        let any = run(case(Policy::Oldest));
        let resident = run(case(Policy::Resident));
        assert!(resident.loads < any.loads / 3.0, "{resident:?} {any:?}");
        assert!(resident.p95 < any.p95 / 10.0, "{resident:?} {any:?}");
    }

    #[test]
    fn beyond_its_places_a_cluster_refuses() {
        let outcome = run(Case {
            models: 1,
            rate: 800.0,
            places: 10,
            ..case(Policy::Resident)
        });
        assert!((outcome.refused - 0.5).abs() < 0.02, "{outcome:?}");
        assert!((outcome.served / 400.0 - 1.0).abs() < 0.02, "{outcome:?}");
        assert!(
            outcome.longest < 0.05,
            "who is accepted waits for the ten before it at most: {outcome:?}"
        );
    }
}
