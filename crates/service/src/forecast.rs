//! How long jobs will take: what is left of each, times what the device has been seen to need for it.
//!
//! A device does one thing at a time, so what passes between two pieces of news is what the newer one took, whatever ran
//! together. Owns no clock; times come in as arguments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, JobId};

/// A measurement counts a tenth less with every later one, so that a change of the machine is followed.
const FADING: f64 = 0.9;
/// Seconds that one image of one pixel takes for each row of an evaluation where nothing has been measured: about a second
/// for 512x512 on a few cores of a CPU.
const GUESS: f64 = 4e-6;

/// Jobs of one kind take the same time for the same work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// The checkpoint's name in the catalogue.
    pub(crate) model: String,
    /// 2 with guidance, else 1.
    pub(crate) rows: u32,
    /// The binary logarithm of the pixels, so that a caller cannot make many kinds; time within one grows with the pixels.
    size_class: u32,
}

/// What the device will have to do for one job, as far as it is known before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    kind: Kind,
    /// Of each image.
    pixels: f64,
    images: u32,
    /// Of all images together.
    evaluations: u32,
}

impl Expected {
    /// `evaluations` of each of `images`.
    #[expect(clippy::cast_precision_loss, reason = "no image has 2^53 pixels")]
    pub(crate) fn new(model: &str, (pixels, rows): (u64, u32), (images, evaluations): (u32, u32)) -> Self {
        Self {
            kind: Kind {
                model: model.to_owned(),
                rows,
                size_class: pixels.max(1).ilog2(),
            },
            pixels: pixels.max(1) as f64,
            images,
            evaluations: evaluations.saturating_mul(images),
        }
    }
}

/// What has been measured of one act of one kind, both fading.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    seconds: f64,
    pixels: f64,
}

impl Measured {
    fn add(&mut self, seconds: f64, pixels: f64) {
        self.seconds = self.seconds.mul_add(FADING, seconds);
        self.pixels = self.pixels.mul_add(FADING, pixels);
    }

    fn per_pixel(&self) -> Option<f64> {
        (self.pixels > 0.0).then(|| self.seconds / self.pixels)
    }
}

/// The three acts of a job.
#[derive(Clone, Copy, Debug)]
enum Act {
    Prepare,
    Evaluate,
    Finish,
}

/// A job that has not ended.
#[derive(Debug)]
struct Open {
    owner: ApiKeyId,
    expected: Expected,
    /// Set while the device has it.
    running: Option<Done>,
}

/// What the device has done of a job in this attempt.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    prepared: bool,
    evaluations: u32,
    images: u32,
}

/// Where a job stands among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How long it will be until the job has ended, if no other job comes. None for a job that is not known.
    pub time_left: Option<Duration>,
    /// Which of those that wait for the device it is, from 1, as far as the turns of owners can be told: before it go the
    /// older jobs of its owner, and as many of each other owner. None for a job that is not known, or does not wait.
    pub position: Option<usize>,
}

/// Seconds for each act and pixel of jobs of one kind, looked up once.
type Paces<'a> = HashMap<&'a Kind, [f64; 3]>;

/// What one owner has open.
#[derive(Debug, Default)]
struct Owned {
    /// Seconds of each that runs.
    running: Vec<f64>,
    waiting: usize,
    waiting_seconds: f64,
}

impl Owned {
    fn seconds(&self) -> f64 {
        self.running.iter().sum::<f64>() + self.waiting_seconds
    }
}

/// A job among those of its owner.
enum Place {
    Runs,
    /// Behind so many older ones, which need so many seconds.
    Waits {
        behind: usize,
        seconds: f64,
    },
}

/// What is known.
#[derive(Debug, Default)]
pub(crate) struct Forecast {
    /// Ids sort by the time of their making, which is the order in which those of one owner begin.
    jobs: BTreeMap<JobId, Open>,
    measured: HashMap<Kind, [Measured; 3]>,
    /// When the device was last heard of.
    heard: Option<Instant>,
}

impl Forecast {
    /// A job that will run. What was expected of one that is known already is replaced.
    pub(crate) fn expect(&mut self, id: JobId, owner: ApiKeyId, expected: Expected) {
        let running = None;
        self.jobs.insert(
            id,
            Open {
                owner,
                expected,
                running,
            },
        );
    }

    /// It has ended, however.
    pub(crate) fn forget(&mut self, id: JobId) {
        self.jobs.remove(&id);
    }

    pub(crate) fn knows(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// The jobs that are expected or run.
    pub(crate) fn known(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }

    /// Keeps only the jobs for which this holds.
    pub(crate) fn retain(&mut self, open: impl Fn(JobId) -> bool) {
        self.jobs.retain(|id, _| open(*id));
    }

    /// The device begins with the job.
    pub(crate) fn started(&mut self, id: JobId, now: Instant) {
        let idle = self.jobs.values().all(|job| job.running.is_none());
        if idle {
            // What passed before was nobody's.
            self.heard = Some(now);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.running = Some(Done::default());
        }
    }

    /// The job's attempt is over.
    pub(crate) fn stopped(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.running = None;
        }
    }

    /// So many evaluations of the job have run; the first word is that it is prepared.
    pub(crate) fn evaluated(&mut self, id: JobId, evaluations: u32, now: Instant) {
        let Some((expected, done)) = self.running(id) else {
            return;
        };
        let (kind, pixels) = (expected.kind.clone(), expected.pixels);
        let new = evaluations.saturating_sub(done.evaluations);
        let was_prepared = std::mem::replace(&mut done.prepared, true);
        done.evaluations = evaluations;
        let (act, times) = if was_prepared {
            (Act::Evaluate, new)
        } else {
            (Act::Prepare, 1)
        };
        self.measure(kind, act, pixels * f64::from(times), now);
    }

    /// One more image of the job is finished.
    pub(crate) fn finished(&mut self, id: JobId, now: Instant) {
        let Some((expected, done)) = self.running(id) else {
            return;
        };
        let (kind, pixels) = (expected.kind.clone(), expected.pixels);
        done.images += 1;
        self.measure(kind, Act::Finish, pixels, now);
    }

    fn running(&mut self, id: JobId) -> Option<(&Expected, &mut Done)> {
        let job = self.jobs.get_mut(&id)?;
        Some((&job.expected, job.running.as_mut()?))
    }

    fn measure(&mut self, kind: Kind, act: Act, pixels: f64, now: Instant) {
        let before = self.heard.replace(now).unwrap_or(now);
        let seconds = now.saturating_duration_since(before).as_secs_f64();
        self.measured.entry(kind).or_default()[act as usize].add(seconds, pixels);
    }

    /// Where these jobs stand, each in its turn, at the cost of one look over all jobs.
    ///
    /// Owners take turns, in the queue and on the device: while the jobs of one have their time, each other owner has as much
    /// of it, or less where it has less to do.
    pub(crate) fn standings(&self, ids: &[JobId]) -> Vec<Standing> {
        let asked: HashSet<JobId> = ids.iter().copied().collect();
        let mut paces = Paces::new();
        let mut owners: HashMap<&ApiKeyId, Owned> = HashMap::new();
        let mut found = HashMap::new();
        for (id, job) in &self.jobs {
            let left = self.left(job, &mut paces);
            let own = owners.entry(&job.owner).or_default();
            if asked.contains(id) {
                let place = match job.running {
                    Some(_) => Place::Runs,
                    None => Place::Waits {
                        behind: own.waiting,
                        seconds: own.waiting_seconds,
                    },
                };
                found.insert(*id, (&job.owner, left, place));
            }
            if job.running.is_some() {
                own.running.push(left);
            } else {
                own.waiting += 1;
                own.waiting_seconds += left;
            }
        }
        let standing = |id: &JobId| {
            let Some((owner, left, place)) = found.get(id) else {
                return Standing::default();
            };
            let running = owners
                .get(owner)
                .map_or([].as_slice(), |own| own.running.as_slice());
            let own = match place {
                // They take turns until one of them has ended.
                Place::Runs => running.iter().map(|other| other.min(*left)).sum::<f64>(),
                Place::Waits { seconds, .. } => running.iter().sum::<f64>() + seconds + left,
            };
            let others = || owners.iter().filter(|(other, _)| *other != owner);
            let meanwhile: f64 = others().map(|(_, theirs)| theirs.seconds().min(own)).sum();
            let position = match place {
                Place::Runs => None,
                Place::Waits { behind, .. } => {
                    let turns = others().map(|(_, theirs)| theirs.waiting.min(behind + 1));
                    Some(behind + turns.sum::<usize>() + 1)
                }
            };
            Standing {
                time_left: Some(Duration::from_secs_f64(meanwhile + own)),
                position,
            }
        };
        ids.iter().map(standing).collect()
    }

    /// As [`Standing::time_left`].
    pub(crate) fn time_left(&self, id: JobId) -> Option<Duration> {
        self.standings(&[id]).first()?.time_left
    }

    /// As [`Standing::position`].
    pub(crate) fn position(&self, id: JobId) -> Option<usize> {
        self.standings(&[id]).first()?.position
    }

    /// How long a job that came now would wait if every owner's jobs went before it, which is the longest that it can be.
    pub(crate) fn queue_time(&self) -> Duration {
        let mut paces = Paces::new();
        Duration::from_secs_f64(self.jobs.values().map(|job| self.left(job, &mut paces)).sum())
    }

    /// Seconds of the device.
    fn left<'a>(&'a self, job: &'a Open, paces: &mut Paces<'a>) -> f64 {
        let (expected, done) = (&job.expected, job.running.unwrap_or_default());
        let preparations = u32::from(!done.prepared);
        let evaluations = expected.evaluations.saturating_sub(done.evaluations);
        let images = expected.images.saturating_sub(done.images);
        let times = [preparations, evaluations, images];
        let pace = paces.entry(&expected.kind).or_insert_with(|| {
            [Act::Prepare, Act::Evaluate, Act::Finish].map(|act| self.per_pixel(&expected.kind, act))
        });
        let seconds = times
            .iter()
            .zip(pace.iter())
            .map(|(times, pace)| f64::from(*times) * *pace);
        seconds.sum::<f64>() * expected.pixels
    }

    /// As measured, or of what is most alike: the same model at the nearest size, any model, and else a guess.
    fn per_pixel(&self, kind: &Kind, act: Act) -> f64 {
        let measured = self.measured.iter();
        let alike = measured.filter_map(|(other, acts)| {
            let seconds = acts[act as usize].per_pixel()?;
            let scaled = match act {
                Act::Evaluate => seconds * f64::from(kind.rows) / f64::from(other.rows),
                Act::Prepare | Act::Finish => seconds,
            };
            let distance = (
                kind.model != other.model,
                kind.size_class.abs_diff(other.size_class),
                kind.rows.abs_diff(other.rows),
                other.model.as_str(),
            );
            Some((distance, scaled))
        });
        let nearest = alike.min_by(|a, b| a.0.cmp(&b.0));
        nearest.map_or_else(
            || match act {
                Act::Evaluate => GUESS * f64::from(kind.rows),
                Act::Prepare | Act::Finish => GUESS,
            },
            |(_, seconds)| seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    const SIZE: u64 = 512 * 512;

    fn id(number: u128) -> JobId {
        JobId::from_u128(number)
    }

    fn expected(images: u32, evaluations: u32) -> Expected {
        Expected::new("demo", (SIZE, 1), (images, evaluations))
    }

    fn seconds(time: Duration) -> f64 {
        // What binary fractions lose must not matter.
        (time.as_secs_f64() * 1000.0).round() / 1000.0
    }

    /// A job of `evaluations` on one image, with 2 s to prepare, 0.5 s for each evaluation, 1 s to finish.
    fn ran(forecast: &mut Forecast, number: u128, evaluations: u32, mut now: Instant) -> Instant {
        forecast.expect(id(number), ApiKeyId::anonymous(), expected(1, evaluations));
        forecast.started(id(number), now);
        now += Duration::from_secs(2);
        forecast.evaluated(id(number), 0, now);
        for done in 1..=evaluations {
            now += Duration::from_millis(500);
            forecast.evaluated(id(number), done, now);
        }
        now += Duration::from_secs(1);
        forecast.finished(id(number), now);
        forecast.forget(id(number));
        now
    }

    #[test]
    fn what_was_measured_is_expected_again() {
        let mut forecast = Forecast::default();
        let start = SystemClock.now();
        // An hour of idleness is no work.
        let now = ran(&mut forecast, 1, 4, start) + Duration::from_secs(3600);
        ran(&mut forecast, 2, 10, now);
        assert_eq!(forecast.queue_time(), Duration::ZERO);
        forecast.expect(id(3), ApiKeyId::anonymous(), expected(2, 20));
        assert_eq!(forecast.time_left(id(3)).map(seconds), Some(2.0 + 20.0 + 2.0));
        forecast.expect(id(4), ApiKeyId::anonymous(), expected(1, 2));
        assert_eq!(forecast.time_left(id(4)).map(seconds), Some(24.0 + 4.0));
        assert_eq!(
            forecast.time_left(id(3)).map(seconds),
            Some(24.0),
            "who comes later is not waited for"
        );
        assert_eq!(seconds(forecast.queue_time()), 28.0);
        forecast.forget(id(3));
        assert_eq!(forecast.time_left(id(4)).map(seconds), Some(4.0));
        assert_eq!(forecast.time_left(id(3)), None);
    }

    #[test]
    fn what_is_done_is_not_waited_for() {
        let mut forecast = Forecast::default();
        let now = ran(&mut forecast, 1, 4, SystemClock.now());
        forecast.expect(id(2), ApiKeyId::anonymous(), expected(1, 10));
        forecast.started(id(2), now);
        forecast.evaluated(id(2), 0, now + Duration::from_secs(2));
        assert_eq!(forecast.time_left(id(2)).map(seconds), Some(5.0 + 1.0));
        let mut at = now + Duration::from_secs(2);
        for done in 1..=8 {
            at += Duration::from_millis(500);
            forecast.evaluated(id(2), done, at);
        }
        assert_eq!(forecast.time_left(id(2)).map(seconds), Some(1.0 + 1.0));
        // Another attempt does all of it again.
        forecast.stopped(id(2));
        assert_eq!(forecast.time_left(id(2)).map(seconds), Some(8.0));
    }

    #[test]
    fn jobs_that_run_together_take_turns() {
        let mut forecast = Forecast::default();
        let now = ran(&mut forecast, 1, 4, SystemClock.now());
        for (number, evaluations) in [(2, 100), (3, 2)] {
            forecast.expect(id(number), ApiKeyId::anonymous(), expected(1, evaluations));
            forecast.started(id(number), now);
        }
        assert_eq!(forecast.time_left(id(3)).map(seconds), Some(4.0 + 4.0));
        assert_eq!(forecast.time_left(id(2)).map(seconds), Some(53.0 + 4.0));
    }

    #[test]
    fn a_page_of_jobs_stands_where_each_of_them_does() {
        let mut forecast = Forecast::default();
        let now = ran(&mut forecast, 1, 4, SystemClock.now());
        for number in 2..=40 {
            let owner = ApiKeyId::new(format!("owner {}", number % 3));
            forecast.expect(id(number), owner, expected(1, u32::try_from(number).unwrap()));
        }
        for number in [3, 4, 6] {
            forecast.started(id(number), now);
        }
        let ids: Vec<JobId> = (1..=41).rev().map(id).collect();
        let page = forecast.standings(&ids);
        for (id, standing) in ids.iter().zip(&page) {
            assert_eq!(standing.time_left, forecast.time_left(*id));
            assert_eq!(standing.position, forecast.position(*id));
        }
        assert_eq!((page[0], page[40]), (Standing::default(), Standing::default()));
        // Eleven of its owner wait before it, all eleven of one other, and as many turns of the third.
        let last = page[1];
        assert_eq!(last.position, Some(11 + 11 + 12 + 1));
        assert!(last.time_left > page[2].time_left);
    }

    #[test]
    fn owners_take_turns() {
        let mut forecast = Forecast::default();
        let now = ran(&mut forecast, 1, 4, SystemClock.now());
        let [flood, one, two] = ["flood", "one", "two"].map(ApiKeyId::new);
        // Each takes 2 + 2 + 1 s.
        for number in 2..=201 {
            forecast.expect(id(number), flood.clone(), expected(1, 4));
        }
        forecast.expect(id(300), one.clone(), expected(1, 4));
        let left = |forecast: &Forecast, number| forecast.time_left(id(number)).map(seconds);
        assert_eq!(
            left(&forecast, 300),
            Some(5.0 + 5.0),
            "not after all of the flood"
        );
        assert_eq!(left(&forecast, 201), Some(1000.0 + 5.0));
        forecast.expect(id(301), one.clone(), expected(1, 4));
        forecast.expect(id(302), two, expected(1, 2));
        assert_eq!(left(&forecast, 301), Some(10.0 + 10.0 + 4.0));
        // Of those that run, too.
        forecast.started(id(2), now);
        forecast.started(id(301), now);
        assert_eq!(left(&forecast, 301), Some(5.0 + 5.0 + 4.0));
        assert_eq!(left(&forecast, 300), Some(10.0 + 10.0 + 4.0));
    }

    #[test]
    fn what_was_never_measured_is_taken_from_what_is_most_alike() {
        let mut forecast = Forecast::default();
        let of = |model: &str, pixels, rows| Expected::new(model, (pixels, rows), (1, 10));
        forecast.expect(id(1), ApiKeyId::anonymous(), of("demo", SIZE, 1));
        let guessed = forecast.time_left(id(1)).map(seconds).unwrap();
        assert!((5.0..30.0).contains(&guessed), "{guessed}");
        ran(&mut forecast, 2, 4, SystemClock.now());
        for (job, seconds_left) in [
            (of("demo", SIZE, 1), 2.0 + 5.0 + 1.0),
            (of("demo", SIZE, 2), 2.0 + 10.0 + 1.0),
            (of("demo", SIZE / 4, 1), 8.0 / 4.0),
            (of("demo", SIZE * 4, 1), 8.0 * 4.0),
            (of("other", SIZE, 1), 8.0),
        ] {
            forecast.expect(id(1), ApiKeyId::anonymous(), job.clone());
            assert_eq!(
                forecast.time_left(id(1)).map(seconds),
                Some(seconds_left),
                "{job:?}"
            );
        }
    }

    #[test]
    fn callers_cannot_make_it_remember_much() {
        let mut forecast = Forecast::default();
        let now = SystemClock.now();
        for side in 1..3000_u64 {
            let number = id(u128::from(side));
            forecast.expect(
                number,
                ApiKeyId::anonymous(),
                Expected::new("demo", (side * side, 1), (1, 1)),
            );
            forecast.started(number, now);
            forecast.evaluated(number, 0, now);
            forecast.forget(number);
        }
        assert!(forecast.measured.len() < 30, "{}", forecast.measured.len());
    }
}
