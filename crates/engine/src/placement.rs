//! Which of several devices a job goes to, and the account of what each has before it.
//!
//! A job goes where it is expected to end first: behind the work that waits there, and after the load of a model that is not there
//! yet. So it follows its model, then what the model differs in, and comes to a device without it as soon as the wait for those that
//! have it is longer than a load. Decided once, when the job is handed over. Owns no tensor, channel or clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pentimento_types::{JobId, Progress};

use crate::ModelKey;

/// What bringing a checkpoint onto a device costs, in seconds, about: from the page cache, and up over the bus. It is the most that
/// a job waits longer for a device that has its model than it would at one without.
const COLD_CHECKPOINT_SECONDS: f64 = 8.0;
/// The same when the checkpoint is there, and the LoRAs or what stands beside it are not.
const COLD_REST_SECONDS: f64 = 1.0;
/// Seconds for a unit of work while no device has done any.
const UNMEASURED_PACE: f64 = 1e-7;
/// The work of a job of which nobody knows it: four evaluations of a 512x512 picture.
const UNKNOWN_WORK: u64 = 512 * 512 * 9;
/// Work after which what was measured before counts half.
const MEASURED_WORK: f64 = 4e9;

/// How much of a model a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Nothing.
    Cold,
    /// The checkpoint, but not all that the job wants with it.
    Checkpoint,
    /// All of it.
    Whole,
}

impl Presence {
    const fn seconds_missing(self) -> f64 {
        match self {
            Self::Cold => COLD_CHECKPOINT_SECONDS,
            Self::Checkpoint => COLD_REST_SECONDS,
            Self::Whole => 0.0,
        }
    }
}

/// What the loader of a device says when a job has to go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// How much of the job's model is there.
    pub presence: Presence,
    /// What all weights there take, in bytes.
    pub weight_bytes: u64,
}

/// What all devices have before them. Shared by the door and the device threads.
#[derive(Debug)]
pub(crate) struct Placement {
    /// Jobs that one device takes.
    max_jobs: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    devices: Vec<Load>,
    jobs: HashMap<JobId, Placed>,
}

/// One device.
#[derive(Clone, Debug, Default)]
struct Load {
    jobs: usize,
    /// What is left of the work of its jobs.
    work: u64,
    /// Seconds in which it worked, and what it did in them.
    measured: (f64, f64),
}

#[derive(Debug)]
struct Placed {
    device: usize,
    model: ModelKey,
    work: u64,
    left: u64,
}

impl State {
    /// Seconds for a unit of work, as measured there or, while nothing was, elsewhere.
    fn pace(&self, device: usize) -> f64 {
        let all = self.devices.iter().fold((0.0, 0.0), |(seconds, work), load| {
            (seconds + load.measured.0, work + load.measured.1)
        });
        let measured = [self.devices[device].measured, all];
        let known = measured
            .iter()
            .find(|(seconds, work)| *work > 0.0 && *seconds > 0.0);
        known.map_or(UNMEASURED_PACE, |(seconds, work)| seconds / work)
    }

    /// How much of a model is on a device once it has what its jobs need.
    fn presence(&self, device: usize, model: &ModelKey, now: Presence) -> Presence {
        let there = self.jobs.values().filter(|placed| placed.device == device);
        let of_jobs = there.map(|placed| {
            if placed.model == *model {
                Presence::Whole
            } else if placed.model.checkpoint_name() == model.checkpoint_name() {
                Presence::Checkpoint
            } else {
                Presence::Cold
            }
        });
        of_jobs.max().map_or(now, |of_jobs| of_jobs.max(now))
    }
}

impl Placement {
    /// Of so many devices, each of which takes `max_jobs` jobs.
    pub(crate) fn new(devices: usize, max_jobs: usize) -> Arc<Self> {
        Arc::new(Self {
            max_jobs,
            state: Mutex::new(State {
                devices: vec![Load::default(); devices],
                jobs: HashMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a device for a job, of which each has said in `offers` what it has. A job that is on one already goes there, where it
    /// is refused.
    pub(crate) fn place(
        self: &Arc<Self>,
        (job, model): (JobId, ModelKey),
        work: u64,
        offers: &[Offer],
    ) -> OnDevice {
        let mut state = self.state();
        if let Some(device) = state.jobs.get(&job).map(|placed| placed.device) {
            return OnDevice {
                placement: Arc::clone(self),
                device,
                job: None,
            };
        }
        let work = if work == 0 { UNKNOWN_WORK } else { work };
        let best = offers.iter().enumerate().min_by(|one, other| {
            let cost = |(device, offer): &(usize, &Offer)| self.cost(&state, *device, (&model, work), offer);
            let by_cost = cost(one).total_cmp(&cost(other));
            // Two that are equally good: where there is more room for weights.
            by_cost.then(one.1.weight_bytes.cmp(&other.1.weight_bytes))
        });
        let device = best.map_or(0, |(device, _)| device);
        if let Some(load) = state.devices.get_mut(device) {
            load.jobs += 1;
            load.work = load.work.saturating_add(work);
        }
        let placed = Placed {
            device,
            model,
            work,
            left: work,
        };
        state.jobs.insert(job, placed);
        OnDevice {
            placement: Arc::clone(self),
            device,
            job: Some(job),
        }
    }

    /// Seconds until the job would have ended there.
    fn cost(&self, state: &State, device: usize, (model, work): (&ModelKey, u64), offer: &Offer) -> f64 {
        let load = &state.devices[device];
        if load.jobs >= self.max_jobs {
            return f64::INFINITY;
        }
        let presence = state.presence(device, model, offer.presence);
        let before_it = load.work.saturating_add(work) as f64 * state.pace(device);
        before_it + presence.seconds_missing()
    }

    /// A device has worked for so long.
    pub(crate) fn worked(&self, device: usize, time: Duration) {
        if let Some(load) = self.state().devices.get_mut(device) {
            load.measured.0 += time.as_secs_f64();
        }
    }

    /// Jobs on each device.
    pub(crate) fn jobs(&self) -> Vec<usize> {
        self.state().devices.iter().map(|load| load.jobs).collect()
    }
}

/// Where a model that nobody waits for is brought to: where most of it is, else where there is most room.
pub(crate) fn place_for_model(offers: &[Offer]) -> usize {
    let best = offers.iter().enumerate().min_by_key(|(_, offer)| {
        let missing = std::cmp::Reverse(offer.presence);
        (missing, offer.weight_bytes)
    });
    best.map_or(0, |(device, _)| device)
}

/// A job on its device. Taken off it when this is dropped.
#[derive(Debug)]
pub(crate) struct OnDevice {
    placement: Arc<Placement>,
    device: usize,
    /// None where it counts already.
    job: Option<JobId>,
}

impl OnDevice {
    pub(crate) const fn device(&self) -> usize {
        self.device
    }

    /// So much of the job is done. What was done once stays done, also of a job that is begun anew.
    pub(crate) fn progressed(&self, progress: Progress) {
        let Some(job) = self.job else { return };
        let mut state = self.placement.state();
        let State { devices, jobs } = &mut *state;
        let Some((placed, load)) = jobs
            .get_mut(&job)
            .and_then(|placed| Some((&mut *placed, devices.get_mut(self.device)?)))
        else {
            return;
        };
        let to_do = progress.total.saturating_sub(progress.done);
        let left = u128::from(placed.work) * u128::from(to_do) / u128::from(progress.total.max(1));
        let left = u64::try_from(left).unwrap_or(u64::MAX).min(placed.left);
        let done = placed.left - left;
        placed.left = left;
        load.work = load.work.saturating_sub(done);
        load.measured.1 += done as f64;
        if load.measured.1 > MEASURED_WORK {
            load.measured = (load.measured.0 / 2.0, load.measured.1 / 2.0);
        }
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        let mut state = self.placement.state();
        let Some(placed) = state.jobs.remove(&job) else {
            return;
        };
        if let Some(load) = state.devices.get_mut(self.device) {
            load.jobs = load.jobs.saturating_sub(1);
            load.work = load.work.saturating_sub(placed.left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Offer = Offer {
        presence: Presence::Cold,
        weight_bytes: 0,
    };
    /// About a second of an unmeasured device.
    const SECOND: u64 = 10_000_000;

    fn offer(presence: Presence, weight_bytes: u64) -> Offer {
        Offer {
            presence,
            weight_bytes,
        }
    }

    /// Jobs that are handed over one after the other.
    struct Line {
        placement: Arc<Placement>,
        next: u128,
    }

    impl Line {
        fn of(devices: usize, max_jobs: usize) -> Self {
            Self {
                placement: Placement::new(devices, max_jobs),
                next: 0,
            }
        }

        fn job(&mut self, model: &str, seconds: u64, offers: &[Offer]) -> OnDevice {
            self.next += 1;
            let job = (JobId::from_u128(self.next), ModelKey::checkpoint(model));
            self.placement.place(job, seconds * SECOND, offers)
        }
    }

    #[test]
    fn two_models_go_to_two_devices_and_stay_there() {
        let mut line = Line::of(2, 8);
        let a = line.job("a", 1, &[IDLE, IDLE]);
        let b = line.job("b", 1, &[IDLE, IDLE]);
        assert_eq!((a.device(), b.device()), (0, 1));
        let again = [line.job("b", 1, &[IDLE, IDLE]), line.job("a", 1, &[IDLE, IDLE])];
        assert_eq!(again.each_ref().map(OnDevice::device), [1, 0]);
        drop((a, b, again));
        // Nobody waits any more, and the weights are where they were.
        let (has, other) = (offer(Presence::Whole, 9), offer(Presence::Cold, 3));
        assert_eq!(line.job("b", 1, &[other, has]).device(), 1);
        assert_eq!(line.job("a", 1, &[has, other]).device(), 0);
        // A third comes to where there is more room.
        assert_eq!(line.job("c", 1, &[IDLE, offer(Presence::Cold, 5)]).device(), 0);
        assert_eq!(line.job("c", 1, &[offer(Presence::Cold, 5), IDLE]).device(), 1);
    }

    #[test]
    fn a_device_without_the_model_is_used_when_the_wait_is_longer_than_a_load() {
        let mut line = Line::of(2, 64);
        let offers = [offer(Presence::Whole, 9), IDLE];
        let jobs: Vec<OnDevice> = (0..12).map(|_| line.job("a", 1, &offers)).collect();
        let first_cold = jobs.iter().position(|job| job.device() == 1);
        assert_eq!(
            first_cold,
            Some(8),
            "with eight before it a job waits as long as a load takes, and there is more room"
        );
        // From then on both have it, and the shorter line is the better one.
        let devices: Vec<usize> = jobs[8..].iter().map(OnDevice::device).collect();
        assert_eq!(devices, [1, 1, 1, 1]);
    }

    #[test]
    fn a_set_of_loras_follows_its_checkpoint() {
        let mut line = Line::of(2, 64);
        let offers = [offer(Presence::Cold, 0), offer(Presence::Checkpoint, 9)];
        let mut devices = (0..4).map(|_| line.job("a", 2, &offers));
        let placed: Vec<OnDevice> = devices.by_ref().collect();
        assert!(placed.iter().all(|job| job.device() == 1));
        // One that has the whole set wins from one that has the checkpoint alone.
        let offers = [offer(Presence::Whole, 20), offer(Presence::Checkpoint, 0)];
        assert_eq!(Line::of(2, 64).job("a", 1, &offers).device(), 0);
    }

    #[test]
    fn what_is_done_waits_no_more_and_tells_the_pace() {
        let mut line = Line::of(2, 64);
        let warm = [offer(Presence::Whole, 0); 2];
        let long = line.job("a", 20, &warm);
        assert_eq!(line.job("a", 1, &warm).device(), 1);
        // The first device does in a second what was thought to take fifteen.
        long.progressed(Progress { done: 15, total: 20 });
        line.placement.worked(0, Duration::from_secs(1));
        // Begun anew it has nothing more before it than then.
        long.progressed(Progress { done: 0, total: 20 });
        let state = line.placement.state();
        assert_eq!(state.devices[0].work, 5 * SECOND);
        assert!((state.pace(0) * (15 * SECOND) as f64 - 1.0).abs() < 1e-9);
        assert_eq!(
            state.pace(0).to_bits(),
            state.pace(1).to_bits(),
            "nobody knows better of the other"
        );
        drop(state);
        drop(long);
        assert_eq!(line.placement.jobs(), [0, 0]);
        assert_eq!(line.placement.state().devices[0].work, 0);
    }

    #[test]
    fn a_slow_device_gets_less() {
        let mut line = Line::of(2, 64);
        let warm = [offer(Presence::Whole, 0); 2];
        for (device, seconds) in [(0, 1.0), (1, 3.0)] {
            line.placement.state().devices[device].measured = (seconds, SECOND as f64);
        }
        let jobs: Vec<OnDevice> = (0..8).map(|_| line.job("a", 1, &warm)).collect();
        let slow = jobs.iter().filter(|job| job.device() == 1).count();
        assert_eq!(slow, 2, "a third as many as the other");
    }

    #[test]
    fn a_full_device_is_passed_by_and_a_job_is_nowhere_twice() {
        let mut line = Line::of(2, 1);
        let offers = [offer(Presence::Whole, 9), IDLE];
        let first = line.job("a", 1, &offers);
        let second = line.job("a", 1, &offers);
        assert_eq!((first.device(), second.device()), (0, 1));
        let again = (JobId::from_u128(2), ModelKey::checkpoint("a"));
        let again = line.placement.place(again, SECOND, &offers);
        assert_eq!(again.device(), 1, "where it is refused");
        drop(again);
        assert_eq!(line.placement.jobs(), [1, 1], "it never counted");
        drop(second);
        assert_eq!(line.placement.jobs(), [1, 0]);
    }

    #[test]
    fn a_model_alone_goes_where_most_of_it_is_then_where_there_is_room() {
        let place = |one, other| place_for_model(&[one, other]);
        assert_eq!(place(offer(Presence::Cold, 5), offer(Presence::Cold, 3)), 1);
        assert_eq!(
            place(offer(Presence::Cold, 0), offer(Presence::Checkpoint, 90)),
            1
        );
        assert_eq!(
            place(offer(Presence::Whole, 99), offer(Presence::Checkpoint, 0)),
            0
        );
    }
}
