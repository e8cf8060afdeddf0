//! The suite that every store, queue and outbox passes.

use std::sync::Mutex;

use pentimento_jobs::conformance::{self, Fixture};
use pentimento_types::ManualClock;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::*;

/// What is longer than this is about the clock of the records alone.
const OF_THE_BROKER: Duration = Duration::from_secs(5);

/// A node of a cluster of its own. Its records go by a clock that is moved, its leases by the broker's real one.
fn fixture(broker: &Broker, unfinished: usize) -> (Fixture, Arc<TempDir>) {
    let clock = ManualClock::new(long_ago());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let limits = JobLimits { unfinished, ..LIMITS };
    let starting = start(
        settings(broker, &new_cluster()),
        (NodeId::random(), Arc::clone(&folder)),
        (Arc::new(clock.clone()), limits),
    );
    let node = block_in_place(|| Handle::current().block_on(starting));
    let Cluster { jobs, queue } = node.cluster;
    let passing = clock.clone();
    let fixture = Fixture {
        let_pass: Arc::new(move |time| {
            passing.advance(time);
            Box::pin(async move {
                if time <= OF_THE_BROKER {
                    SystemClock.sleep_until(SystemClock.now() + time).await;
                }
            })
        }),
        ..Fixture::new(jobs, queue, &clock)
    };
    (fixture, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    for program in programs() {
        println!("against {}", program.display());
        let kept = Mutex::new(None);
        conformance::run_all(|unfinished| {
            // A broker for each check, so that nothing of one is in another's way.
            let broker = Broker::start(program.clone(), "");
            let (fixture, folder) = fixture(&broker, unfinished);
            *kept.lock().unwrap() = Some((broker, folder));
            fixture
        })
        .await;
    }
}
