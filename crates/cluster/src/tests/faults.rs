//! What becomes of jobs when nodes, the broker or its disk go away and come back.

use pentimento_jobs::{Claim, JobFilter, Outbox as _, OutboxFilter, Refusal, Transition};
use pentimento_types::{Idempotency, JobState, WebhookId};

use super::*;
use crate::ClusterError;

async fn claim(node: &Node) -> Claim {
    let claim = tokio::time::timeout(PATIENCE, node.cluster.queue.claim(LEASE, &[])).await;
    claim.expect("a job is there").unwrap()
}

async fn started(node: &Node, id: JobId) -> u32 {
    let job = node.get(id).await.unwrap();
    let start = Transition::Start { attempt: job.attempt };
    node.cluster.jobs.transition(id, start).await.unwrap().attempt
}

async fn succeed(node: &Node, id: JobId, attempt: u32) -> Result<Job, JobsError> {
    let succeed = Transition::Succeed {
        attempt,
        images: Vec::new(),
        began_at: None,
    };
    node.cluster.jobs.transition(id, succeed).await
}

async fn sees(node: &Node, id: JobId, state: JobState) -> Job {
    eventually("the other node hears of it", async || {
        node.cluster
            .jobs
            .get(id)
            .await
            .ok()
            .flatten()
            .filter(|job| job.state == state)
    })
    .await
}

fn told() -> Job {
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.not_before = None;
    job.delivery.webhook = Some("https://receiver.example/".to_owned());
    job
}

async fn webhooks(node: &Node) -> Vec<WebhookId> {
    let webhooks = node
        .cluster
        .jobs
        .webhooks(&OutboxFilter::default())
        .await
        .unwrap();
    webhooks.iter().map(|webhook| webhook.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_taken_by_one_node_run_by_another_and_told_by_the_first() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = a.submit_job(told()).await;
        assert_eq!(
            b.get(id).await.map(|job| job.state),
            Some(JobState::Queued),
            "at once, on any node"
        );
        let claimed = claim(&b).await;
        assert_eq!(claimed.job(), id);
        let attempt = started(&b, id).await;
        let running = sees(&a, id, JobState::Running).await;
        assert_eq!(a.cluster.jobs.holder(id), Some("b".parse().unwrap()));
        assert!(!a.cluster.jobs.is_ours(&running) && b.cluster.jobs.is_ours(&running));
        assert_eq!(a.cluster.jobs.counts().await.unwrap().running, 1);
        let waiting = {
            let jobs = a.cluster.jobs.clone();
            tokio::spawn(async move { jobs.wait_until_ended(id).await })
        };
        succeed(&b, id, attempt).await.unwrap();
        b.cluster.queue.complete(claimed).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().state, JobState::Succeeded);
        eventually("the end is in the journal", async || {
            (!webhooks(&a).await.is_empty()).then_some(())
        })
        .await;
        assert_eq!(
            (webhooks(&a).await, webhooks(&b).await),
            (vec![WebhookId::of(id)], vec![])
        );
        let own = a.cluster.jobs.own().get(id).await.unwrap().unwrap();
        assert_eq!(own.state, JobState::Succeeded);
        // Listed everywhere, and deleted by any node.
        let all = JobFilter::default();
        assert_eq!(b.cluster.jobs.list(&all).await.unwrap().len(), 1);
        assert!(b.cluster.jobs.remove(id).await.unwrap());
        eventually("its home forgets it", async || {
            a.get(id).await.is_none().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_on_another_node_wins_over_what_comes_later() {
    let Some(program) = programs().pop() else { return };
    let broker = Broker::start(program, "");
    let name = new_cluster();
    let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
    let id = a.submit().await;
    let claimed = claim(&a).await;
    let attempt = started(&a, id).await;
    b.cluster.jobs.transition(id, Transition::Cancel).await.unwrap();
    let late = succeed(&a, id, attempt).await;
    assert!(matches!(late, Err(JobsError::Refused(refused)) if refused.reason == Refusal::Ended));
    a.cluster.queue.complete(claimed).await.unwrap();
    sees(&a, id, JobState::Cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_one_in_the_whole_cluster() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let twin = || {
            let mut job = sample_job(JobId::new(), SystemClock.wall());
            job.dialect.number = None;
            job.idempotency = Some(Idempotency {
                key: "once".to_owned(),
                digest: "d".to_owned(),
            });
            job
        };
        let insert = async |node: &Node, job: Job| {
            let place = node.cluster.jobs.reserve(&job.owner).unwrap();
            node.cluster.jobs.insert(job, place).await
        };
        let (one, other) = (twin(), twin());
        let ids = [one.id, other.id];
        let answers = tokio::join!(insert(&a, one), insert(&b, other));
        let answers = [answers.0.unwrap(), answers.1.unwrap()];
        let is_new = answers.map(|answer| answer == Inserted::New);
        assert_ne!(is_new[0], is_new[1], "{answers:?}");
        let first = if is_new[0] { ids[0] } else { ids[1] };
        assert!(answers.contains(&Inserted::Known(first)));
        let found = b.cluster.jobs.find_by_key(&twin().owner, "once").await.unwrap();
        assert_eq!(found.map(|job| job.id), Some(first));
        // And a number of the dialect.
        let numbered = || {
            let mut job = sample_job(JobId::new(), SystemClock.wall());
            job.dialect.number = Some(7);
            job
        };
        let number = numbered();
        let id = number.id;
        insert(&a, number).await.unwrap();
        let taken = insert(&b, numbered()).await;
        assert!(matches!(taken, Err(JobsError::NumberTaken)), "{taken:?}");
        let found = b.cluster.jobs.find_by_number("novita", 7).await.unwrap();
        assert_eq!(found.map(|job| job.id), Some(id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_at_work_loses_its_job_to_another() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = a.submit().await;
        let lost = claim(&b).await;
        assert_eq!(lost.job(), id);
        let attempt = started(&b, id).await;
        assert_eq!(attempt, 1);
        // It is not heard any more, and comes back when all is over.
        let again = claim(&a).await;
        assert_eq!(again.job(), id);
        let attempt = started(&a, id).await;
        let job = a.get(id).await.unwrap();
        assert_eq!((attempt, job.crashes), (2, 1));
        let late = b.cluster.queue.heartbeat(&lost, LEASE).await;
        assert!(matches!(late, Err(JobsError::ClaimLost { .. })), "{late:?}");
        let late = succeed(&b, id, 1).await;
        assert!(matches!(late, Err(JobsError::Refused(refused)) if refused.reason == Refusal::StaleAttempt));
        succeed(&a, id, attempt).await.unwrap();
        a.cluster.queue.complete(again).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_a_node_takes_and_runs_its_own_jobs_and_tells_the_others_later() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let before = a.submit().await;
        broker.kill();
        away(&a).await;
        let id = a.submit_job(told()).await;
        let claimed = claim(&a).await;
        // The one of before may be another's by now.
        assert_eq!(claimed.job(), id);
        let attempt = started(&a, id).await;
        succeed(&a, id, attempt).await.unwrap();
        a.cluster.queue.complete(claimed).await.unwrap();
        assert_eq!(webhooks(&a).await, [WebhookId::of(id)]);
        // Nobody has it, and after a while nobody can have it any more.
        let claimed = claim(&a).await;
        assert_eq!(claimed.job(), before);
        let attempt = started(&a, before).await;
        broker.start_again();
        sees(&b, id, JobState::Succeeded).await;
        let running = sees(&b, before, JobState::Running).await;
        assert_eq!((running.attempt, running.crashes), (1, 0));
        succeed(&a, before, attempt).await.unwrap();
        a.cluster.queue.complete(claimed).await.unwrap();
        sees(&b, before, JobState::Succeeded).await;
        let nothing = tokio::time::timeout(3 * LEASE, b.cluster.queue.claim(LEASE, &[])).await;
        if let Ok(Ok(claim)) = nothing {
            let job = b.get(claim.job()).await.unwrap();
            assert!(
                job.state.is_final(),
                "whoever gets an old message sees that its job has ended"
            );
        }
    }
}

/// Whether the broker is away or only its own line is cut, it cannot tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_nothing_leaves_a_job_to_its_worker_however_long_it_is_without_the_broker() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (front(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = a.submit().await;
        let claimed = claim(&b).await;
        let attempt = started(&b, id).await;
        sees(&a, id, JobState::Running).await;
        broker.kill();
        away(&a).await;
        // Longer than a worker may be silent.
        tokio::time::sleep(3 * LEASE).await;
        let job = a.get(id).await.unwrap();
        assert_eq!((job.state, job.attempt), (JobState::Running, attempt));
        broker.start_again();
        eventually("the line is up", async || {
            b.cluster.queue.heartbeat(&claimed, LEASE).await.ok()
        })
        .await;
        succeed(&b, id, attempt).await.unwrap();
        b.cluster.queue.complete(claimed).await.unwrap();
        assert_eq!(sees(&a, id, JobState::Succeeded).await.attempt, attempt);
    }
}

/// A quorum that is gone and a disk that hangs look like this.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_connected_and_does_not_answer_is_as_good_as_away() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (
            node(&broker, &name, "a").await,
            Arc::new(node(&broker, &name, "b").await),
        );
        let before = a.submit().await;
        sees(&b, before, JobState::Queued).await;
        b.cluster
            .jobs
            .transition(before, Transition::Cancel)
            .await
            .unwrap();
        sees(&a, before, JobState::Cancelled).await;
        broker.freeze();
        let connection = &a.cluster.jobs.shared.connection;
        let stands = || connection.client().connection_state() == async_nats::connection::State::Connected;
        // Callers do not stand in line for the same silence: one after the other would take minutes.
        let many: Vec<_> = (0..40)
            .map(|_| {
                let b = Arc::clone(&b);
                tokio::spawn(async move { b.submit().await })
            })
            .collect();
        for submitted in many {
            submitted.await.unwrap();
        }
        assert!(stands(), "all are accepted before the line itself is given up");
        let id = a.submit_job(told()).await;
        let claimed = claim(&a).await;
        assert_eq!(claimed.job(), id);
        assert!(
            stands() && !connection.is_up(),
            "it works alone on a line that stands"
        );
        let attempt = started(&a, id).await;
        succeed(&a, id, attempt).await.unwrap();
        a.cluster.queue.complete(claimed).await.unwrap();
        broker.thaw();
        sees(&b, id, JobState::Succeeded).await;
        eventually("the broker counts as there again", async || {
            connection.is_up().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_while_the_broker_was_away_outlives_a_restart_of_its_home() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let id = a.submit_job(told()).await;
        sees(&b, id, JobState::Queued).await;
        broker.kill();
        // Once nobody else can have it.
        let claimed = claim(&a).await;
        assert_eq!(claimed.job(), id);
        let attempt = started(&a, id).await;
        let ended = succeed(&a, id, attempt).await.unwrap();
        a.cluster.queue.complete(claimed).await.unwrap();
        let a = a.restarted(&broker, &name).await;
        broker.start_again();
        // The broker has it queued, in its record and in its stream.
        assert_eq!(sees(&b, id, JobState::Succeeded).await, ended);
        assert_eq!(a.get(id).await, Some(ended));
        let again = tokio::time::timeout(3 * LEASE, b.cluster.queue.claim(LEASE, &[])).await;
        if let Ok(Ok(claim)) = again {
            let job = b.get(claim.job()).await.unwrap();
            assert_eq!(job.state, JobState::Succeeded, "it is run by nobody");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_empty_is_told_everything_again() {
    for program in programs() {
        let mut broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let ended = a.submit().await;
        let claimed = claim(&a).await;
        let attempt = started(&a, ended).await;
        succeed(&a, ended, attempt).await.unwrap();
        a.cluster.queue.complete(claimed).await.unwrap();
        let (running, waiting) = (a.submit().await, a.submit().await);
        let claimed = claim(&b).await;
        assert_eq!(claimed.job(), running);
        let attempt = started(&b, running).await;
        broker.kill();
        broker.lose_its_disk();
        broker.start_again();
        let c = node(&broker, &name, "c").await;
        for (id, state) in [(ended, JobState::Succeeded), (waiting, JobState::Queued)] {
            sees(&c, id, state).await;
        }
        // The one at work goes on, since its worker is heard.
        let heard = {
            let queue = Arc::clone(&b.cluster.queue);
            let claimed = Claim::new(claimed.job(), claimed.owner().clone(), claimed.token());
            tokio::spawn(async move {
                loop {
                    match queue.heartbeat(&claimed, LEASE).await {
                        Ok(()) | Err(JobsError::Backend { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    SystemClock.sleep_until(SystemClock.now() + LEASE / 4).await;
                }
            })
        };
        let other = claim(&c).await;
        assert_eq!(other.job(), waiting);
        c.cluster.queue.complete(other).await.unwrap();
        eventually("its end is taken", async || {
            match succeed(&b, running, attempt).await {
                Ok(job) => Some(job),
                Err(JobsError::Backend { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await;
        assert!(!heard.is_finished(), "it has had its job all the time");
        heard.abort();
        b.cluster.queue.complete(claimed).await.unwrap();
        let told = sees(&a, running, JobState::Succeeded).await;
        assert_eq!(told.attempt, 1, "it was run once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_finds_its_jobs_and_leaves_those_that_others_run() {
    for program in programs() {
        let broker = Broker::start(program, "");
        let name = new_cluster();
        let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
        let (elsewhere, waiting) = (a.submit().await, a.submit_job(told()).await);
        let claimed = claim(&b).await;
        assert_eq!(claimed.job(), elsewhere);
        let attempt = started(&b, elsewhere).await;
        let a = a.restarted(&broker, &name).await;
        let job = sees(&a, elsewhere, JobState::Running).await;
        assert_eq!(
            (job.attempt, job.crashes),
            (1, 0),
            "its end was no crash of that job"
        );
        succeed(&b, elsewhere, attempt).await.unwrap();
        b.cluster.queue.complete(claimed).await.unwrap();
        sees(&a, elsewhere, JobState::Succeeded).await;
        let claimed = claim(&b).await;
        assert_eq!(claimed.job(), waiting);
        let attempt = started(&b, waiting).await;
        succeed(&b, waiting, attempt).await.unwrap();
        b.cluster.queue.complete(claimed).await.unwrap();
        eventually("it is told", async || {
            (webhooks(&a).await == [WebhookId::of(waiting)]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stays_is_run_by_its_own_node_alone() {
    let Some(program) = programs().pop() else { return };
    let broker = Broker::start(program, "");
    let name = new_cluster();
    let (a, b) = (node(&broker, &name, "a").await, node(&broker, &name, "b").await);
    let mut job = sample_job(JobId::new(), SystemClock.wall());
    job.stays = true;
    let id = a.submit_job(job).await;
    let other = tokio::time::timeout(2 * LEASE, b.cluster.queue.claim(LEASE, &[])).await;
    assert!(other.is_err(), "{other:?}");
    assert_eq!(claim(&a).await.job(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_let_a_node_in_keeps_it_from_starting() {
    for program in programs() {
        let broker = Broker::start(program, "authorization { token: \"right\" }");
        let open =
            async |credentials| Connection::open(ClusterSettings::new(vec![broker.url()], credentials)).await;
        for wrong in [Credentials::None, Credentials::Token("wrong".to_owned())] {
            let refused = open(wrong).await;
            assert!(
                matches!(refused, Err(ClusterError::Refused { .. })),
                "{refused:?}"
            );
        }
        let empty = open(Credentials::Token(String::new())).await;
        assert!(
            matches!(empty, Err(ClusterError::EmptyCredential { .. })),
            "{empty:?}"
        );
        assert!(
            open(Credentials::Token("right".to_owned()))
                .await
                .unwrap()
                .is_up()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_broker_and_finds_it_later() {
    let Some(program) = programs().pop() else { return };
    let mut broker = Broker::start(program, "");
    broker.kill();
    let name = new_cluster();
    let a = node(&broker, &name, "a").await;
    let id = a.submit().await;
    assert_eq!(claim(&a).await.job(), id, "nobody else can have it");
    broker.start_again();
    let b = node(&broker, &name, "b").await;
    sees(&b, id, JobState::Queued).await;
}
