//! Webhooks: faults F 65 and F 66. Receivers are real ones on loopback, and what they are told of is written down by the
//! clock of the test.

use pentimento_jobs::{OutboxEntry, OutboxFilter, OutboxState, Transition};
use pentimento_types::{JobState, WebhookId};

use super::receiver::Receiver;
use super::*;

/// Ends a job whose end is told to `url`, without running it.
async fn end_told(test: &TestService, url: String) -> WebhookId {
    end_told_of(test, url, ApiKeyId::anonymous()).await
}

async fn end_told_of(test: &TestService, url: String, owner: ApiKeyId) -> WebhookId {
    let mut job = sample_job(JobId::new(), test.parts.clock.wall());
    job.owner = owner;
    job.delivery.webhook = Some(url);
    let (id, place) = (job.id, test.parts.store.reserve(&job.owner).unwrap());
    test.parts.store.insert(job, place).await.unwrap();
    test.parts.store.transition(id, Transition::Cancel).await.unwrap();
    WebhookId::of(id)
}

async fn webhook(test: &TestService, id: WebhookId) -> OutboxEntry {
    let filter = OutboxFilter {
        job: Some(id.job()),
        ..OutboxFilter::default()
    };
    test.parts.outbox.webhooks(&filter).await.unwrap().remove(0)
}

/// Waits until the latest sending is written down.
async fn settled(test: &TestService, id: WebhookId, sendings: u32) -> OutboxEntry {
    eventually(async || {
        let webhook = webhook(test, id).await;
        let is_settled = webhook.state != OutboxState::Pending || webhook.problem.is_some();
        webhook.sendings >= sendings && is_settled
    })
    .await;
    // While a sending is under way, the problem of the one before stands there; its lease tells them apart.
    eventually(async || {
        let webhook = webhook(test, id).await;
        let pause = webhook.due.duration_since(test.parts.clock.wall());
        webhook.state != OutboxState::Pending || pause.is_ok_and(|pause| pause != test_lease(test))
    })
    .await;
    webhook(test, id).await
}

fn test_lease(test: &TestService) -> Duration {
    test.parts.webhooks.longest() + Duration::from_secs(30)
}

#[tokio::test]
async fn the_end_of_a_job_is_told_once_and_signed() {
    let test = TestService::start(FakeExecutor::new());
    let receiver = Receiver::start(|_| Some("204 No Content")).await;
    let mut request = sample_request("x");
    request.delivery.webhook = Some(receiver.url());
    let job = run(&test.service, request).await;
    assert_eq!(job.state, JobState::Succeeded);
    let seen = receiver.next().await;
    assert!(
        seen.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.body, job.id.to_string(), "what the dialect says");
    let id = WebhookId::of(job.id);
    assert_eq!(seen.header("webhook-id"), id.to_string());
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("user-agent").starts_with("pentimento/"));
    let signature = seen.header("webhook-signature");
    assert!(
        signature.starts_with("v1,") && signature.len() == 47,
        "{signature}"
    );
    assert!(seen.header("webhook-timestamp").parse::<u64>().unwrap() > 1_700_000_000);
    let settled = settled(&test, id, 1).await;
    assert_eq!((settled.state, settled.sendings), (OutboxState::Delivered, 1));
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn a_receiver_that_is_away_is_asked_again_by_the_schedule() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let answers = |number| {
        Some(match number {
            0 => "500 Internal Server Error\r\nretry-after: 1",
            // Not followed.
            1 => "301 Moved Permanently\r\nlocation: /elsewhere",
            2 => "429 Too Many Requests\r\nretry-after: 3600",
            3 => {
                "503 Service Unavailable\r\ndate: Sun, 06 Nov 1994 08:00:00 GMT\r\nretry-after: Sun, 06 Nov 1994 11:00:00 GMT"
            }
            _ => "200 OK",
        })
    };
    let receiver = Receiver::start(answers).await;
    let id = end_told(&test, receiver.url()).await;
    let mut pauses = Vec::new();
    for sending in 1..=4 {
        receiver.next().await;
        let entry = settled(&test, id, sending).await;
        assert_eq!(entry.state, OutboxState::Pending, "{entry:?}");
        let pause = entry.due.duration_since(clock.wall()).unwrap();
        pauses.push((pause.as_secs(), entry.problem.unwrap()));
        clock.advance(pause);
    }
    receiver.next().await;
    assert_eq!(settled(&test, id, 5).await.state, OutboxState::Delivered);
    let within = |at: usize, least: u64, most: u64, status: &str| {
        let (pause, problem) = &pauses[at];
        assert!((least..=most).contains(pause), "{at}: {pauses:?}");
        assert_eq!(problem, &format!("the receiver answered with status {status}"));
    };
    within(0, 5, 6, "500");
    within(1, 300, 360, "301");
    within(2, 3600, 3600, "429");
    within(3, 10_800, 10_800, "503");
    let seen = receiver.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.header("webhook-id") == id.to_string())
    );
    assert!(seen.iter().all(|seen| seen.body == seen_body(id)));
    assert_eq!(seen.len(), 5);
}

fn seen_body(id: WebhookId) -> String {
    id.job().to_string()
}

#[tokio::test]
async fn who_wants_no_more_gets_no_more_until_a_replay() {
    let test = TestService::start(FakeExecutor::new());
    let receiver = Receiver::start(|number| Some(if number == 0 { "410 Gone" } else { "200 OK" })).await;
    let id = end_told(&test, receiver.url()).await;
    let dead = settled(&test, id, 1).await;
    assert_eq!(dead.state, OutboxState::Dead);
    assert_eq!(
        dead.problem.as_deref(),
        Some("the receiver answered with status 410")
    );
    let stranger = test
        .service
        .replay_webhook(&ApiKeyId::new("stranger"), id)
        .await
        .unwrap_err();
    assert!(
        matches!(stranger, ServiceError::WebhookNotFound { .. }),
        "{stranger:?}"
    );
    let owner = ApiKeyId::anonymous();
    test.service.replay_webhook(&owner, id).await.unwrap();
    assert_eq!(settled(&test, id, 2).await.state, OutboxState::Delivered);
    let seen = receiver.seen();
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
}

#[tokio::test]
async fn a_receiver_that_never_answers_well_is_given_up() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let receiver = Receiver::start(|_| Some("404 Not Found")).await;
    let id = end_told(&test, receiver.url()).await;
    for sending in 1..8 {
        receiver.next().await;
        let entry = settled(&test, id, sending).await;
        assert_eq!(entry.state, OutboxState::Pending);
        clock.advance(entry.due.duration_since(clock.wall()).unwrap());
    }
    receiver.next().await;
    let dead = settled(&test, id, 8).await;
    assert_eq!((dead.state, dead.sendings), (OutboxState::Dead, 8));
    clock.advance(Duration::from_secs(86_400));
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(receiver.seen().len(), 8);
}

#[tokio::test]
async fn a_thousand_webhooks_to_a_receiver_that_hangs_delay_nobody() {
    let test = TestService::start(FakeExecutor::new());
    let hanging = Receiver::start(|_| None).await;
    for _ in 0..1000 {
        end_told(&test, hanging.url()).await;
    }
    hanging.next().await;
    let well = Receiver::start(|_| Some("200 OK")).await;
    let mut request = sample_request("x");
    request.delivery.webhook = Some(well.url());
    let job = run(&test.service, request).await;
    assert_eq!(job.state, JobState::Succeeded, "nothing keeps jobs from running");
    well.next().await;
    tokio::time::sleep(A_MOMENT).await;
    assert!(hanging.seen().len() <= 4, "{}", hanging.seen().len());
}

#[tokio::test]
async fn one_owner_with_many_receivers_that_hang_delays_no_other() {
    let test = TestService::start(FakeExecutor::new());
    let mut hanging = Vec::new();
    for _ in 0..12 {
        hanging.push(Receiver::start(|_| None).await);
    }
    for receiver in hanging.iter().cycle().take(48) {
        end_told(&test, receiver.url()).await;
    }
    hanging[0].next().await;
    let well = Receiver::start_on("127.0.0.2", |_| Some("200 OK")).await;
    end_told_of(&test, well.url(), ApiKeyId::new("another")).await;
    well.next().await;
    tokio::time::sleep(A_MOMENT).await;
    let held: usize = hanging.iter().map(|receiver| receiver.seen().len()).sum();
    assert!(held <= 8, "{held}");
}

#[tokio::test]
async fn a_dead_receiver_is_left_alone_after_a_few_failures() {
    let (clock, config) = manual();
    let test = TestService::start_with(FakeExecutor::new(), config);
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    for _ in 0..100 {
        end_told(&test, dead.clone()).await;
    }
    let sendings = async || -> u32 {
        let all = test
            .parts
            .outbox
            .webhooks(&OutboxFilter::default())
            .await
            .unwrap();
        all.iter().map(|webhook| webhook.sendings).sum()
    };
    eventually(async || sendings().await >= 5).await;
    tokio::time::sleep(A_MOMENT).await;
    let at_first = sendings().await;
    assert!(at_first <= 8, "those that were under way, too: {at_first}");
    clock.advance(Duration::from_secs(31));
    eventually(async || sendings().await > at_first).await;
    tokio::time::sleep(A_MOMENT).await;
    assert_eq!(sendings().await, at_first + 1, "one tries it");
    // At last all of them are dead, though most were never sent.
    clock.advance(Duration::from_secs(37 * 3600));
    crate::maintenance::sweep(&test.service.inner).await;
    let all = test
        .parts
        .outbox
        .webhooks(&OutboxFilter::default())
        .await
        .unwrap();
    assert!(all.iter().all(|webhook| webhook.state == OutboxState::Dead));
}

#[tokio::test]
async fn the_webhooks_of_the_last_jobs_are_sent_before_the_end() {
    let test = TestService::start(FakeExecutor::new());
    let receiver = Receiver::start(|_| Some("200 OK")).await;
    let mut request = sample_request("x");
    request.delivery.webhook = Some(receiver.url());
    let id = submit(&test.service, request).await.unwrap();
    in_time(test.service.shutdown(LONG)).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("webhook-id"), WebhookId::of(id).to_string());
}
