//! Messages that nobody can use: they hold nobody up, and nothing is lost with them.

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures::StreamExt as _;
use pentimento_jobs::{Claim, Transition};
use pentimento_types::ModelId;

use super::*;
use crate::ModelToken;
use crate::envelope::{ENVELOPE_VERSION, SharedJob};
use crate::subjects::{Subjects, job_key};

async fn stream(node: &Node, name: &str) -> Stream {
    let jetstream = node.cluster.jobs.shared.connection.jetstream();
    jetstream.get_stream(name).await.unwrap()
}

/// The only one.
fn work_stream(subjects: &Subjects) -> String {
    subjects
        .work_streams()
        .map(|number| subjects.work_stream(number))
        .collect()
}

async fn put(node: &Node, subject: String, payload: impl Into<Bytes>) {
    let jetstream = node.cluster.jobs.shared.connection.jetstream();
    let stored = jetstream.publish(subject, payload.into()).await.unwrap();
    stored.await.unwrap();
}

/// A job that has not ended would be put out again.
async fn end(node: &Node, claim: Claim) {
    let cancelled = node
        .cluster
        .jobs
        .transition(claim.job(), Transition::Cancel)
        .await;
    cancelled.unwrap();
    node.cluster.queue.complete(claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_set_aside_with_its_reason_and_the_next_job_goes_on() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let node = node(&broker, &name, "a").await;
        let subjects = node.cluster.jobs.shared.connection.subjects().clone();
        // The first job makes the stream and its consumer.
        let first = node.submit().await;
        let claim = node.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(claim.job(), first);
        let demo = ModelToken::of(&ModelId::new("demo"));
        put(
            &node,
            subjects.work(&demo, JobId::from_u128(1)),
            b"\xff not a message".as_slice(),
        )
        .await;
        put(
            &node,
            subjects.work(&demo, JobId::from_u128(2)),
            b"{\"v\": 1, \"job\": 7}".as_slice(),
        )
        .await;
        // As large as the broker takes it.
        let largest = vec![
            b'x';
            node.cluster
                .jobs
                .shared
                .connection
                .client()
                .server_info()
                .max_payload
        ];
        put(&node, subjects.work(&demo, JobId::from_u128(3)), largest.clone()).await;
        end(&node, claim).await;
        let second = node.submit().await;
        let claim = node.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(claim.job(), second);
        end(&node, claim).await;
        let mut dead = stream(&node, &subjects.dead_stream()).await;
        assert_eq!(dead.info().await.unwrap().state.messages, 3);
        let cut = dead.get_raw_message(3).await.unwrap();
        assert_eq!(cut.payload.len(), crate::envelope::LARGEST);
        let whole = cut.headers.get("Pentimento-Bytes").unwrap();
        assert_eq!(whole.as_str(), largest.len().to_string());
        let kept = dead.get_raw_message(1).await.unwrap();
        assert_eq!(&kept.payload[..], b"\xff not a message");
        let reason = kept.headers.get("Pentimento-Reason").unwrap();
        assert!(reason.as_str().contains("no message of a cluster"), "{reason:?}");
        let work = stream(&node, &work_stream(&subjects)).await;
        assert_eq!(work.cached_info().state.messages, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_node_has_written_waits_for_one() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let node = node(&broker, &name, "a").await;
        let subjects = node.cluster.jobs.shared.connection.subjects().clone();
        let first = node.submit().await;
        let claim = node.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(claim.job(), first);
        end(&node, claim).await;
        let demo = ModelToken::of(&ModelId::new("demo"));
        put(
            &node,
            subjects.work(&demo, JobId::from_u128(1)),
            b"{\"v\": 2, \"other\": true}".as_slice(),
        )
        .await;
        let second = node.submit().await;
        let claim = node.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(claim.job(), second);
        end(&node, claim).await;
        let work = stream(&node, &work_stream(&subjects)).await;
        assert_eq!(work.cached_info().state.messages, 1, "it is left where it is");
        let mut dead = stream(&node, &subjects.dead_stream()).await;
        assert_eq!(dead.info().await.unwrap().state.messages, 0);
    }
}

/// A node that is given a message hides it from all others, and two that look in step would never meet.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_node_has_written_is_not_asked_for_again_and_again() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let node = node(&broker, &new_cluster(), "a").await;
        let shared = &node.cluster.jobs.shared;
        let subjects = shared.connection.subjects().clone();
        // Makes the stream and its consumer.
        node.submit().await;
        let claim = node.cluster.queue.claim(LEASE, &[]).await.unwrap();
        end(&node, claim).await;
        let demo = ModelToken::of(&ModelId::new("demo"));
        let newer = b"{\"v\": 2, \"other\": true}".as_slice();
        put(&node, subjects.work(&demo, JobId::from_u128(1)), newer).await;
        let mut consumer: PullConsumer = stream(&node, &work_stream(&subjects))
            .await
            .get_consumer(&Subjects::consumer(&demo))
            .await
            .unwrap();
        let asks = node.cluster.queue.claim(LEASE, &[]);
        let looks = async {
            let mut given = async || consumer.info().await.unwrap().delivered.consumer_sequence;
            let looked = async {
                while given().await < 2 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let looked = tokio::time::timeout(PATIENCE, looked).await;
            looked.expect("the node looks at it");
            // Several lists of what waits, and longer than the message is hidden.
            tokio::time::sleep(Duration::from_secs(7)).await;
            assert_eq!(given().await, 2, "it was asked for again");
            let mut found = consumer.fetch().max_messages(1).messages().await.unwrap();
            found.next().await.expect("it is there for others").unwrap()
        };
        let found = tokio::select! {
            claim = asks => panic!("nobody can claim it: {claim:?}"),
            found = looks => found,
        };
        assert_eq!(&found.payload[..], newer);
    }
}

/// An older home hears what a newer worker has made.
#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_record_leaves_it_in_the_form_that_it_has() {
    const OLDER: u32 = ENVELOPE_VERSION - 1;
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (home, worker) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = home.submit().await;
        let shared = &home.cluster.jobs.shared;
        let (rooms, key) = (shared.connection.rooms().await.unwrap(), job_key(id));
        let form = async || {
            let found = rooms.jobs.get(&key).await.unwrap().unwrap();
            SharedJob::decode(&found.bytes, id).unwrap().form()
        };
        assert_eq!(form().await, ENVELOPE_VERSION);
        // As if an older home had written it.
        let found = rooms.jobs.get(&key).await.unwrap().unwrap();
        let older = SharedJob::decode(&found.bytes, id).unwrap().in_form(OLDER);
        let written = rooms
            .jobs
            .update(&key, older.encode().unwrap(), found.revision)
            .await;
        assert!(written.is_ok());
        let claimed = worker.cluster.queue.claim(LEASE, &[]).await.unwrap();
        assert_eq!(claimed.job(), id);
        end(&worker, claimed).await;
        eventually("its home knows that it has ended", async || {
            home.get(id).await?.state.is_final().then_some(())
        })
        .await;
        assert_eq!(form().await, OLDER);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_refused_before_anything_is_stored() {
    let Some(program) = programs().pop() else { return };
    let broker = Broker::start(program, "");
    let node = node(&broker, &new_cluster(), "a").await;
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.recipe.prompt = "x".repeat(70_000);
    let place = node.cluster.jobs.reserve(&job.owner).unwrap();
    let id = job.id;
    let refused = node.cluster.jobs.insert(job, place).await;
    assert!(
        matches!(refused, Err(JobsError::TooLarge { limit: 65_536, .. })),
        "{refused:?}"
    );
    assert_eq!(node.get(id).await, None);
    assert_eq!(node.cluster.jobs.counts().await.unwrap().queued, 0);
}
