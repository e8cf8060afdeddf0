//! Names and deletions, where the cluster could not be told of them.

use pentimento_types::{Idempotency, JobState};

use super::*;
use crate::envelope::{NameHolder, plain};
use crate::subjects::request_key;

fn twin() -> Job {
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.not_before = None;
    job.dialect.number = None;
    job.idempotency = Some(Idempotency {
        key: "once".to_owned(),
        digest: "d".to_owned(),
    });
    job
}

async fn insert(node: &Node, job: Job) -> Result<Inserted, JobsError> {
    let place = node.cluster.jobs.reserve(&job.owner).unwrap();
    node.cluster.jobs.insert(job, place).await
}

/// As a node leaves it that dies, or loses the broker, after it has taken the name.
async fn take_name(node: &Node, job: &Job) {
    let rooms = node.cluster.jobs.shared.connection.rooms().await.unwrap();
    let holder = NameHolder {
        job: job.id,
        home: Some(node.id.clone()),
    };
    let key = request_key(&job.owner, "once");
    rooms.names.overwrite(&key, plain(&holder)).await.unwrap();
}

async fn known(node: &Node, id: JobId) {
    eventually("it is known", async || {
        node.cluster.jobs.get(id).await.ok().flatten()
    })
    .await;
}

async fn is_gone(node: &Node, id: JobId) {
    eventually("it is forgotten", async || {
        node.get(id).await.is_none().then_some(())
    })
    .await;
}

async fn ended(node: &Node, job: Job) -> JobId {
    let id = job.id;
    assert_eq!(insert(node, job).await.unwrap(), Inserted::New);
    let cancel = pentimento_jobs::Transition::Cancel;
    node.cluster.jobs.transition(id, cancel).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_job_could_not_be_shared_makes_no_second_job() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let first = twin();
        take_name(&a, &first).await;
        let own = a.cluster.jobs.own();
        let place = own.reserve(&first.owner).unwrap();
        own.insert(first.clone(), place).await.unwrap();
        assert_eq!(insert(&b, twin()).await.unwrap(), Inserted::Known(first.id));
        assert_eq!(b.get(first.id).await.map(|job| job.state), Some(JobState::Queued));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_node_that_cannot_be_asked_is_in_doubt_for_as_long_as_it_may_be_silent() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        // Its node is there, and has no such job.
        take_name(&a, &twin()).await;
        let second = twin();
        assert_eq!(insert(&b, second.clone()).await.unwrap(), Inserted::New);
        assert!(b.cluster.jobs.own().get(second.id).await.unwrap().is_some());
        let c = node(&broker, &name, "c").await;
        let mut other = twin();
        other.owner = pentimento_types::ApiKeyId::new("other");
        take_name(&c, &other).await;
        drop(c);
        let again = || Job {
            owner: other.owner.clone(),
            ..twin()
        };
        eventually("nobody answers for it", async || {
            matches!(insert(&b, again()).await, Err(JobsError::KeyInDoubt)).then_some(())
        })
        .await;
        eventually("it is taken over", async || {
            matches!(insert(&b, again()).await, Ok(Inserted::New)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_while_the_broker_was_away_is_one_in_the_cluster_when_it_is_back() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        broker.kill();
        away(&a).await;
        let first = twin();
        assert_eq!(insert(&a, first.clone()).await.unwrap(), Inserted::New);
        broker.start_again();
        known(&b, first.id).await;
        assert_eq!(insert(&b, twin()).await.unwrap(), Inserted::Known(first.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_of_while_the_broker_was_away_outlives_a_restart() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        // One of each node's, both deleted by the first.
        let ours = ended(&a, twin()).await;
        let theirs = ended(
            &b,
            Job {
                idempotency: None,
                ..twin()
            },
        )
        .await;
        for (node, id) in [(&a, theirs), (&b, ours)] {
            known(node, id).await;
        }
        broker.kill();
        away(&a).await;
        for id in [ours, theirs] {
            assert!(a.cluster.jobs.remove(id).await.unwrap());
            assert_eq!(a.get(id).await, None);
        }
        let a = a.restarted(&broker, &name).await;
        broker.start_again();
        for id in [ours, theirs] {
            is_gone(&b, id).await;
            is_gone(&a, id).await;
        }
        assert_eq!(b.cluster.jobs.own().get(theirs).await.unwrap(), None);
        assert_eq!(
            insert(&b, twin()).await.unwrap(),
            Inserted::New,
            "its key is free"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_another_node_deleted_is_not_brought_back_by_its_own() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = ended(&a, twin()).await;
        known(&b, id).await;
        let Node {
            cluster,
            folder,
            id: named,
        } = a;
        drop(cluster);
        assert!(b.cluster.jobs.remove(id).await.unwrap());
        SystemClock
            .sleep_until(SystemClock.now() + Duration::from_millis(500))
            .await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let a = start(settings(&broker, &name), (named, folder), (clock, LIMITS)).await;
        is_gone(&a, id).await;
        let later = a.submit().await;
        known(&b, later).await;
        assert_eq!(b.get(id).await, None);
    }
}
