//! Jobs go to nodes that have all of their models.

use pentimento_types::{LoraRef, ModelId};

use super::*;
use crate::{ModelToken, WaitingModel};

/// A node with every checkpoint and no LoRA.
#[derive(Debug)]
struct WithoutLoras;

impl Affinity for WithoutLoras {
    fn order(&self, waiting: Vec<WaitingModel>) -> Vec<ModelToken> {
        OldestFirst.order(waiting)
    }

    fn takes(&self, entry: &QueueEntry) -> bool {
        entry.beside.loras.is_empty()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_leaves_a_job_alone_whose_lora_it_lacks() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let a = node(&broker, &name, "a").await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let named = ("b".parse().unwrap(), Arc::new(tempfile::tempdir().unwrap()));
        let settings = settings(&broker, &name);
        let b = start_with(settings, named, (clock, LIMITS), (Arc::new(WithoutLoras), true)).await;
        let sample = || {
            let mut job = sample_job(JobId::new(), SystemClock.wall());
            job.not_before = None;
            job.recipe.loras.clear();
            job
        };
        let mut with_lora = sample();
        with_lora.recipe.loras.push(LoraRef {
            model: ModelId::new("only on a"),
            strength: 0.5,
        });
        let with_lora = a.submit_job(with_lora).await;
        let claimed = tokio::time::timeout(2 * LEASE, b.cluster.queue.claim(LEASE, &[])).await;
        assert!(claimed.is_err(), "{claimed:?}");
        let of_a = a.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(of_a.job(), with_lora);
        // One that no free machine can run does not hold up its owner's others.
        let mut waiting = sample();
        waiting.recipe.loras.push(LoraRef {
            model: ModelId::new("nowhere"),
            strength: 0.5,
        });
        a.submit_job(waiting).await;
        let plain = a.submit_job(sample()).await;
        let of_b = tokio::time::timeout(PATIENCE, b.cluster.queue.claim(LEASE, &[])).await;
        let of_b = of_b.expect("a job is there").unwrap();
        assert_eq!(of_b.job(), plain);
        assert_eq!(a.get(with_lora).await.unwrap().faults, 0);
    }
}
