//! Jobs that are spread over several streams of a broker.

use std::collections::BTreeSet;

use pentimento_types::ModelId;

use super::*;

/// Enough that each of three streams has some.
const MODELS: usize = 12;

async fn node_of(broker: &Broker, cluster: &str, id: &str) -> Node {
    let settings = ClusterSettings {
        streams: 3,
        ..settings(broker, cluster)
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let named = (id.parse().unwrap(), Arc::new(tempfile::tempdir().unwrap()));
    start(settings, named, (clock, LIMITS)).await
}

async fn messages(node: &Node) -> Vec<u64> {
    let rooms = node.cluster.jobs.shared.connection.rooms().await.unwrap();
    let mut counts = Vec::new();
    for (_, mut stream) in rooms.work {
        counts.push(stream.info().await.unwrap().state.messages);
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_spread_by_their_checkpoints_and_any_node_gets_them() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (
            node_of(&broker, &name, "a").await,
            node_of(&broker, &name, "b").await,
        );
        let mut submitted = BTreeSet::new();
        for model in 0..MODELS {
            let mut job = sample_job(JobId::new(), SystemClock.wall());
            job.not_before = None;
            job.recipe.model = ModelId::new(format!("model {model}"));
            submitted.insert(a.submit_job(job).await);
        }
        let counts = eventually("all are in the streams", async || {
            let counts = messages(&a).await;
            (counts.iter().sum::<u64>() == MODELS as u64).then_some(counts)
        })
        .await;
        assert!(
            counts.len() == 3 && counts.iter().all(|count| *count > 0),
            "{counts:?}"
        );
        let gone = submitted.pop_first().unwrap();
        a.cluster.queue.forget(gone).await.unwrap();
        assert_eq!(messages(&a).await.iter().sum::<u64>(), MODELS as u64 - 1);
        let mut claimed = BTreeSet::new();
        for _ in 1..MODELS {
            let claim = tokio::time::timeout(PATIENCE, b.cluster.queue.claim(LEASE, &[])).await;
            let claim = claim.expect("a job is there").unwrap();
            claimed.insert(claim.job());
            b.cluster
                .jobs
                .transition(claim.job(), pentimento_jobs::Transition::Cancel)
                .await
                .unwrap();
            b.cluster.queue.complete(claim).await.unwrap();
        }
        assert_eq!(claimed, submitted);
        assert_eq!(messages(&a).await, [0, 0, 0]);
    }
}
