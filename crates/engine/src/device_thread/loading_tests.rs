//! Loads beside the device, and preparations in slices, over a fake device.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use pentimento_types::{
    Clock as _, ErrorKind, HasKind, JobId, ManualClock, MemoryBudget, MemoryLedger, MemoryUse, SystemClock,
    describe_chain,
};

use super::tests::{error, expected, held, images, input, input_on, news, start};
use crate::testing::{FakeExecutor, Fault, FaultAt, FaultKind, SeenAct};
use crate::{BatchPolicy, Engine, EngineError, EngineHandle, JobEvent, JobEvents, JobTerms};

/// A machine on which the model `slow` is loaded when the sender says so or is dropped.
fn slow_disk(executor: FakeExecutor) -> (FakeExecutor, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    let executor = executor.with_load_hook(move |model| {
        if model == "slow" {
            let _ = gate.lock().expect("no test panics here").recv();
        }
    });
    (executor, go)
}

fn generate(handle: &EngineHandle, id: u128, model: &str) -> JobEvents {
    let input = input_on(model, "a fox", 2);
    handle
        .generate(JobId::from_u128(id), input)
        .expect("there is room")
}

#[test]
fn other_jobs_run_to_their_end_while_a_model_is_loading() {
    let executor = FakeExecutor::new();
    let recording = executor.recording();
    let (executor, go) = slow_disk(executor);
    let (handle, _thread) = start(executor, BatchPolicy::cpu());
    let cold = generate(&handle, 1, "slow");
    for id in 2..10 {
        // A model that is in memory, and one that has to be loaded beside the slow one.
        let model = if id == 5 { "other" } else { "fake" };
        assert_eq!(images(generate(&handle, id, model)), expected(&input("a fox", 2)));
    }
    assert_eq!(handle.status().jobs_loading, 1);
    assert_eq!(handle.resident_models(), ["fake", "other"]);
    let seen = recording.acts().len();
    drop(go);
    images(cold);
    assert!(recording.acts().len() > seen);
}

#[test]
fn a_hundred_jobs_cause_one_load_and_all_learn_the_cause() {
    let fault = Fault::always("slow", FaultAt::Load, FaultKind::Error(ErrorKind::NotFound));
    let executor = FakeExecutor::new().with_fault(fault);
    let recording = executor.recording();
    let (executor, go) = slow_disk(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let jobs: Vec<JobEvents> = (1..=100).map(|id| generate(&handle, id, "slow")).collect();
    while handle.status().jobs_loading < 100 {
        std::thread::yield_now();
    }
    drop(go);
    for events in jobs {
        let error = error(events);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.is_permanent());
        let chain = describe_chain(&error);
        assert!(chain.ends_with("a fault that a test asked for"), "{chain}");
    }
    assert_eq!(recording.loads(), ["slow"]);
    assert_eq!(handle.status().jobs, 0);
}

#[test]
fn a_load_that_panics_fails_its_jobs_and_nobody_else() {
    let fault = Fault::once("bad", FaultAt::Load, FaultKind::Panic);
    let (handle, _thread) = start(FakeExecutor::new().with_fault(fault), BatchPolicy::default());
    let (bad, good) = (generate(&handle, 1, "bad"), generate(&handle, 2, "good"));
    assert!(matches!(error(bad), EngineError::Panicked { act: "load" }));
    images(good);
    images(generate(&handle, 3, "bad"));
    assert!(handle.status().healthy);
}

#[test]
fn without_memory_for_two_models_the_second_waits_for_the_first() {
    let executor = FakeExecutor::new().with_room_for_models(1);
    let recording = executor.recording();
    let (executor, go) = held(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let first = generate(&handle, 1, "first");
    // Its first act begins once it is loaded.
    while recording.acts().is_empty() {
        std::thread::yield_now();
    }
    let second = generate(&handle, 2, "second");
    drop(go);
    images(first);
    images(second);
    let loads = recording.loads();
    assert_eq!(loads.first().map(String::as_str), Some("first"));
    assert!(loads[1..].iter().all(|name| name == "second"), "{loads:?}");
    assert!(loads.len() <= 3, "refused once at most: {loads:?}");
    assert_eq!(handle.resident_models(), ["second"]);
}

#[tokio::test]
async fn a_disk_that_does_not_answer_holds_no_shutdown_up() {
    let (executor, go) = slow_disk(FakeExecutor::new());
    let (handle, thread) = start(executor, BatchPolicy::default());
    let events = generate(&handle, 1, "slow");
    while handle.status().jobs_loading == 0 {
        tokio::task::yield_now().await;
    }
    handle.shutdown(Duration::ZERO).await;
    let last = tokio::task::spawn_blocking(move || news(events).pop())
        .await
        .expect("no panic");
    assert!(
        matches!(last, Some(JobEvent::Failed(EngineError::ShuttingDown))),
        "{last:?}"
    );
    thread.join().expect("the thread leaves the load behind");
    drop(go);
}

#[test]
fn a_deadline_is_kept_while_a_model_is_loading() {
    let (executor, go) = slow_disk(FakeExecutor::new());
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH);
    let (handle, _thread) =
        Engine::start(executor, BatchPolicy::cpu(), Arc::new(clock.clone())).expect("a thread starts");
    let deadline = Some(clock.now() + Duration::from_secs(5));
    let late = handle
        .generate_until(JobId::from_u128(1), input_on("slow", "a fox", 1), deadline)
        .expect("there is room");
    let unwanted = generate(&handle, 2, "slow");
    while handle.status().jobs_loading < 2 {
        std::thread::yield_now();
    }
    drop(unwanted);
    clock.advance(Duration::from_secs(6));
    assert!(matches!(error(late), EngineError::DeadlineExceeded));
    while handle.status().jobs > 0 {
        std::thread::yield_now();
    }
    drop(go);
}

#[test]
fn a_job_is_cancelled_between_two_slices_of_its_preparation() {
    let executor = FakeExecutor::new().with_slices(50);
    let recording = executor.recording();
    let (executor, go) = held(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let events = generate(&handle, 1, "fake");
    for _ in 0..10 {
        go.send(()).expect("the device waits");
    }
    // The eleventh slice has begun and waits.
    while recording.acts().len() < 11 {
        std::thread::yield_now();
    }
    handle.cancel(JobId::from_u128(1));
    drop(go);
    assert!(matches!(news(events).last(), Some(JobEvent::Cancelled)));
    assert_eq!(
        recording.acts().len(),
        11,
        "no slice after the one that was running"
    );
    assert_eq!(handle.status().jobs, 0);
}

#[test]
fn a_job_is_cancelled_between_two_slices_of_its_decoding_and_another_has_its_image() {
    let executor = FakeExecutor::new().with_finish_slices(20_000);
    let recording = executor.recording();
    let (executor, go) = held(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let cancelled = generate(&handle, 1, "fake");
    let slices_of_decoding = || {
        let acts = recording.acts();
        let slices = acts.iter().filter(|act| matches!(act, SeenAct::Finish(_)));
        slices.count()
    };
    while slices_of_decoding() < 11 {
        // More than the device waits for; what is too much lets later acts pass.
        let _ = go.send(());
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    }
    handle.cancel(JobId::from_u128(1));
    let other = generate(&handle, 2, "fake");
    drop(go);
    assert!(matches!(news(cancelled).last(), Some(JobEvent::Cancelled)));
    let begun = slices_of_decoding();
    assert_eq!(images(other), expected(&input("a fox", 2)));
    assert!(begun < 20_000, "the cancelled job was not decoded to its end");
    assert_eq!(handle.status().jobs, 0);
}

#[test]
fn two_jobs_of_many_slices_are_prepared_by_turns() {
    let executor = FakeExecutor::new().with_slices(40);
    let recording = executor.recording();
    let (executor, go) = held(executor);
    let (handle, _thread) = start(executor, BatchPolicy::default());
    let jobs = [generate(&handle, 1, "fake"), generate(&handle, 2, "fake")];
    drop(go);
    for events in jobs {
        assert_eq!(images(events), expected(&input("a fox", 2)));
    }
    let slices = recording
        .acts()
        .iter()
        .filter(|act| matches!(act, SeenAct::Prepare { .. }))
        .count();
    assert_eq!(slices, 80, "each slice once");
}

#[test]
fn images_beyond_the_budget_in_bytes_are_refused_at_the_door() {
    let (executor, go) = held(FakeExecutor::new());
    let (first, second) = (input("first", 1), input("second", 1));
    let memory = MemoryLedger::new(MemoryBudget {
        images: first.image_bytes() + 1,
        ..MemoryBudget::UNBOUNDED
    });
    let (policy, clock) = (BatchPolicy::default(), Arc::new(SystemClock));
    let (handle, _thread) =
        Engine::start_within(executor, policy, clock, Arc::clone(&memory)).expect("a thread starts");
    let events = handle
        .generate(JobId::from_u128(1), first.clone())
        .expect("there is room");
    assert_eq!(memory.held(MemoryUse::Images), first.image_bytes());
    let refused = handle
        .generate(JobId::from_u128(2), second)
        .expect_err("it is full");
    assert!(matches!(refused, EngineError::MemoryFull(_)), "{refused:?}");
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    let giant = handle
        .reserve(first.image_bytes() + 2)
        .expect_err("it would never fit");
    assert_eq!(giant.kind(), ErrorKind::TooLarge);
    assert_eq!(
        handle.status().jobs,
        1,
        "the places of those that were refused are free"
    );
    drop(go);
    images(events);
    let place = handle
        .reserve(first.image_bytes())
        .expect("the place is free again");
    let events = handle
        .generate_in(place, JobId::from_u128(3), first, JobTerms::default())
        .expect("it runs");
    images(events);
    assert_eq!(memory.held(MemoryUse::Images), 0);
}
