//! What is read to keep journal, bucket and queue in step.

use std::collections::HashSet;

use super::*;
use crate::keeper::Round;

/// Unfinished jobs of the node.
const JOBS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_round_looks_at_what_has_changed_and_a_whole_one_at_all() {
    let Some(program) = programs().pop() else {
        return;
    };
    let broker = Broker::start(program, "");
    let (clock, folder): (Arc<dyn Clock>, _) =
        (Arc::new(SystemClock), Arc::new(tempfile::tempdir().unwrap()));
    let limits = JobLimits::in_number(2 * JOBS, JOBS);
    let named = ("a".parse().unwrap(), folder);
    let node = Arc::new(start(settings(&broker, &new_cluster()), named, (clock, limits)).await);
    let mut submitted = tokio::task::JoinSet::new();
    for _ in 0..JOBS {
        let node = Arc::clone(&node);
        submitted.spawn(async move { node.submit().await });
    }
    let ids = submitted.join_all().await;
    let shared = &node.cluster.jobs.shared;
    let round = async |round: Option<Round>, changed: &HashSet<JobId>| {
        let began = SystemClock.now();
        let looked = shared.mend_jobs(round, changed).await.unwrap();
        let took = SystemClock.now().saturating_duration_since(began);
        println!("{looked} jobs looked at in {took:?}");
        looked
    };
    eventually("there is nothing to look at", async || {
        shared.unsettled.take().is_empty().then_some(())
    })
    .await;
    assert_eq!(round(Some(Round::default()), &HashSet::new()).await, JOBS);
    let changed = HashSet::from([ids[0], JobId::from_u128(5)]);
    assert_eq!(
        round(None, &changed).await,
        1,
        "one is known, and the other is no job"
    );
}
