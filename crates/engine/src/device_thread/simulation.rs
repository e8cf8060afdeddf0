//! Storms over the whole engine: many jobs at once on a fake device whose acts take time of a manual clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pentimento_types::{ErrorKind, HasKind, JobId, ManualClock};
use proptest::prelude::*;

use super::tests::{input, news};
use crate::testing::{FakeExecutor, Fault, FaultAt, FaultKind};
use crate::{BatchPolicy, Engine, JobEvent, JobEvents, ResolvedJob};

/// A device of limited memory on which words in a prompt bring trouble, and every act takes ten milliseconds.
fn device(clock: ManualClock) -> FakeExecutor {
    FakeExecutor::new()
        .with_memory_for(6)
        .with_fault(Fault::always(
            "broken",
            FaultAt::Evaluation(2),
            FaultKind::Error(ErrorKind::Internal),
        ))
        .with_fault(Fault::always(
            "panicking",
            FaultAt::Evaluation(1),
            FaultKind::Panic,
        ))
        .with_fault(Fault::always(
            "unreadable",
            FaultAt::Prepare,
            FaultKind::Error(ErrorKind::InvalidInput),
        ))
        .with_fault(Fault::always("black", FaultAt::Finish, FaultKind::Panic))
        .with_hook(move |_| clock.advance(Duration::from_millis(10)))
}

#[derive(Clone, Debug)]
struct JobScript {
    word: &'static str,
    images: u32,
    steps: u32,
    guidance: f64,
    impatient: bool,
    cancelled: bool,
}

impl JobScript {
    fn input(&self, number: u128) -> ResolvedJob {
        let mut input = input(&format!("{} {number}", self.word), self.images);
        let request = Arc::make_mut(&mut input.recipe);
        request.steps = self.steps;
        request.guidance_scale = self.guidance;
        request.seed = u64::try_from(number).expect("small");
        input
    }
}

fn script() -> impl Strategy<Value = JobScript> {
    let word = prop_oneof![
        8 => Just("fine"),
        1 => Just("broken"),
        1 => Just("panicking"),
        1 => Just("unreadable"),
        1 => Just("black"),
    ];
    let rare = || prop::bool::weighted(0.1);
    (
        word,
        1..5u32,
        6..30u32,
        prop_oneof![Just(1.0), Just(7.5)],
        rare(),
        rare(),
    )
        .prop_map(
            |(word, images, steps, guidance, impatient, cancelled)| JobScript {
                word,
                images,
                steps,
                guidance,
                impatient,
                cancelled,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever shares the device: every job has exactly one end, the end it deserves, and a finished job has the
    /// images that it would have alone, each once.
    #[test]
    fn a_storm_leaves_every_job_with_the_end_it_deserves(scripts in prop::collection::vec(script(), 1..30)) {
        let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
        let policy = BatchPolicy { max_rows: 8, age_bound: Duration::from_millis(500), ..BatchPolicy::cpu() };
        let (handle, thread) =
            Engine::start(device(clock.clone()), policy, Arc::new(clock)).expect("a thread starts");
        let admit = |(number, script): (u128, &JobScript)| {
            let events = handle.generate(JobId::from_u128(number), script.input(number)).expect("there is room");
            if script.cancelled {
                handle.cancel(JobId::from_u128(number));
            }
            (!script.impatient).then_some(events)
        };
        let jobs: Vec<Option<JobEvents>> = (1..).zip(&scripts).map(admit).collect();
        for ((number, script), events) in (1..).zip(&scripts).zip(jobs) {
            let Some(events) = events else { continue };
            check(script, &script.input(number), &news(events));
        }
        drop(handle);
        thread.join().expect("the thread ends, the impatient jobs too");
    }
}

fn check(script: &JobScript, input: &ResolvedJob, news: &[JobEvent]) {
    let ends = news.iter().filter(|event| event.is_end()).count();
    assert_eq!(ends, 1, "one end");
    let mut delivered = Vec::new();
    let mut done = None;
    for event in news {
        match event {
            JobEvent::Started | JobEvent::Preview { .. } => {}
            JobEvent::Progress(progress) => {
                assert!(done.is_none_or(|before| before < progress.done), "progress rises");
                assert!(progress.done <= progress.total, "no more than all");
                done = Some(progress.done);
            }
            JobEvent::Image { index, finished } => {
                assert!(!delivered.contains(index), "each image once");
                delivered.push(*index);
                assert_eq!(finished.image, FakeExecutor::image_of(input, *index));
            }
            JobEvent::Finished => {
                assert_eq!(script.word, "fine");
                assert_eq!(u32::try_from(delivered.len()), Ok(script.images));
            }
            JobEvent::Failed(error) => {
                let expected = match script.word {
                    "unreadable" => ErrorKind::InvalidInput,
                    "fine" => panic!("an innocent job failed: {error}"),
                    _ => ErrorKind::Internal,
                };
                assert_eq!(error.kind(), expected);
            }
            JobEvent::Cancelled => assert!(script.cancelled),
        }
    }
}

#[test]
fn a_thousand_jobs_in_a_moment_are_taken_or_refused_at_once() {
    // Faults 69 and 70.
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let policy = BatchPolicy {
        max_jobs: 50,
        ..BatchPolicy::gpu()
    };
    let (handle, _thread) =
        Engine::start(device(clock.clone()), policy, Arc::new(clock)).expect("a thread starts");
    let mut taken = Vec::new();
    let mut refused = 0;
    for number in 1..=1000 {
        match handle.generate(JobId::from_u128(number), input("fine", 1)) {
            Ok(events) => taken.push(events),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Overloaded);
                refused += 1;
            }
        }
    }
    assert!(taken.len() >= 50);
    assert_eq!(taken.len() + refused, 1000);
    for events in taken {
        assert!(matches!(news(events).last(), Some(JobEvent::Finished)));
    }
}
