//! Jobs that are forgotten while their messages are on their way.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_forgotten_on_its_way_to_the_broker_is_claimed_by_nobody_here() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let a = node(&broker, &new_cluster(), "a").await;
        let queue = &a.cluster.queue;
        let entry = || {
            let job = sample_job(JobId::new(), SystemClock.wall());
            QueueEntry::of(&job)
        };
        for round in 0..40 {
            let (gone, wanted) = (entry(), entry());
            queue.push(gone.clone()).await.unwrap();
            // Somewhere between the line of this node, the broker, and one who has asked for it and gone away.
            let on_its_way = Duration::from_micros(100 * round);
            if round % 2 == 0 {
                SystemClock.sleep_until(SystemClock.now() + on_its_way).await;
            } else if let Ok(claim) = tokio::time::timeout(on_its_way, queue.claim(LEASE, &[])).await {
                queue.complete(claim.unwrap()).await.unwrap();
                continue;
            }
            queue.forget(gone.id).await.unwrap();
            queue.push(wanted.clone()).await.unwrap();
            let claim = tokio::time::timeout(PATIENCE, queue.claim(LEASE, &[])).await;
            let claim = claim.expect("a job is there").unwrap();
            assert_eq!(claim.job(), wanted.id, "in round {round}");
            queue.complete(claim).await.unwrap();
        }
    }
}
