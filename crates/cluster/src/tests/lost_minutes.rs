//! A broker that comes back as it was some time ago: by default it writes to its disk every two minutes, and a power cut takes
//! what came since.

use pentimento_jobs::{Outbox as _, OutboxFilter, Transition};
use pentimento_types::{JobState, WebhookId};

use super::*;

async fn finish_next(node: &Node, expected: JobId) {
    let claim = tokio::time::timeout(PATIENCE, node.cluster.queue.claim(LEASE, &[])).await;
    let claim = claim.expect("a job is there").unwrap();
    assert_eq!(claim.job(), expected);
    let attempt = node.get(expected).await.unwrap().attempt;
    let jobs = &node.cluster.jobs;
    let started = jobs.transition(expected, Transition::Start { attempt }).await;
    let succeed = Transition::Succeed {
        attempt: started.unwrap().attempt,
        images: Vec::new(),
        began_at: None,
    };
    jobs.transition(expected, succeed).await.unwrap();
    node.cluster.queue.complete(claim).await.unwrap();
}

async fn sees(node: &Node, id: JobId, state: JobState) {
    eventually("it is known what became of the job", async || {
        (node.get(id).await?.state == state).then_some(())
    })
    .await;
}

fn told() -> Job {
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.not_before = None;
    job.delivery.webhook = Some("https://receiver.example/".to_owned());
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_since_the_brokers_last_sync_is_brought_back_and_what_it_took_back_is_not_run_again() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let before = a.submit_job(told()).await;
        sees(&b, before, JobState::Queued).await;
        broker.kill();
        let synced = broker.copy_of_its_disk();
        broker.start_again();
        // None of this will the broker remember.
        finish_next(&b, before).await;
        let ended = a.submit_job(told()).await;
        finish_next(&b, ended).await;
        let waiting = a.submit_job(told()).await;
        sees(&b, waiting, JobState::Queued).await;
        sees(&a, ended, JobState::Succeeded).await;
        broker.kill();
        broker.take_disk(&synced);
        broker.start_again();
        let c = node(&broker, &name, "c").await;
        for (id, state) in [
            (before, JobState::Succeeded),
            (ended, JobState::Succeeded),
            (waiting, JobState::Queued),
        ] {
            sees(&c, id, state).await;
        }
        // The stream had the first one again; who is given it sees that it has ended, and it may be gone already.
        let claim = loop {
            let claim = tokio::time::timeout(PATIENCE, c.cluster.queue.claim(LEASE, &[])).await;
            let claim = claim.expect("a job is there").unwrap();
            if claim.job() == waiting {
                break claim;
            }
            let job = c.get(claim.job()).await.unwrap();
            assert_eq!((job.id, job.state), (before, JobState::Succeeded));
            c.cluster.queue.complete(claim).await.unwrap();
        };
        let cancelled = c.cluster.jobs.transition(waiting, Transition::Cancel).await;
        cancelled.unwrap();
        c.cluster.queue.complete(claim).await.unwrap();
        let mut expected = [before, ended, waiting].map(WebhookId::of);
        expected.sort();
        eventually("each end is told once", async || {
            let webhooks = a.cluster.jobs.webhooks(&OutboxFilter::default()).await.unwrap();
            let mut ids: Vec<WebhookId> = webhooks.iter().map(|webhook| webhook.id).collect();
            ids.sort();
            (ids == expected).then_some(())
        })
        .await;
    }
}
