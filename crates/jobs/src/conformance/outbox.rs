//! What every outbox must do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pentimento_types::{ApiKeyId, ErrorKind, Job, JobFailure, JobId, WebhookId};

use super::fixture::{A_MOMENT, Fixture, LEASE, insert, sample_image, sample_job};
use crate::{JobsError, OutboxEntry, OutboxFilter, OutboxState, SendingTurn, Settlement, Transition};

const PROBLEM: &str = "it did not answer";

/// A queued job whose end is told to this address.
async fn told(fixture: &Fixture, url: &str) -> JobId {
    let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
    job.delivery.webhook = Some(url.to_owned());
    let id = job.id;
    insert(&*fixture.store, job).await;
    id
}

/// One that has ended, at the time that is returned.
async fn ended(fixture: &Fixture, url: &str) -> (JobId, SystemTime) {
    let id = told(fixture, url).await;
    let job = fixture.store.transition(id, Transition::Cancel).await;
    (id, job.expect("queued").finished_at.expect("ended"))
}

async fn taken(fixture: &Fixture, except: &[String]) -> OutboxEntry {
    taken_by(fixture, &except_receivers(except)).await
}

fn except_receivers(except: &[String]) -> SendingTurn {
    SendingTurn {
        except: except.to_vec(),
        ..SendingTurn::default()
    }
}

async fn taken_by(fixture: &Fixture, turn: &SendingTurn) -> OutboxEntry {
    let take = fixture.outbox.take(LEASE, turn);
    tokio::time::timeout(Duration::from_secs(10), take)
        .await
        .expect("a webhook is due")
        .expect("readable")
}

async fn nothing_to_take(fixture: &Fixture) {
    let take = tokio::time::timeout(A_MOMENT, fixture.outbox.take(LEASE, &SendingTurn::default())).await;
    assert!(take.is_err(), "expected nothing due, found {take:?}");
}

async fn all(fixture: &Fixture) -> Vec<OutboxEntry> {
    let all = fixture.outbox.webhooks(&OutboxFilter::default()).await;
    all.expect("readable")
}

fn expect_lost<T: std::fmt::Debug>(result: Result<T, JobsError>) {
    assert!(
        matches!(result, Err(JobsError::SendingLost { .. })),
        "expected a lost sending, found {result:?}"
    );
}

/// However it ends; not before, and not where nobody is to be told.
pub async fn an_end_is_in_the_outbox_with_it(fixture: &Fixture) {
    let store = &*fixture.store;
    let silent = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
    insert(store, silent.clone()).await;
    store
        .transition(silent.id, Transition::Cancel)
        .await
        .expect("queued");
    let url = "https://Receiver.example:8443/hook?a=b";
    let ids = [
        told(fixture, url).await,
        told(fixture, url).await,
        told(fixture, url).await,
    ];
    let start = Transition::Start { attempt: 0 };
    store.transition(ids[0], start).await.expect("queued");
    assert_eq!(all(fixture).await, [], "none has ended");
    let images = vec![sample_image(ids[0])];
    let failure = JobFailure {
        kind: ErrorKind::Internal,
        message: "a fault".to_owned(),
    };
    let ends = [
        Transition::Succeed {
            attempt: 1,
            images,
            began_at: None,
        },
        Transition::Fail { attempt: 0, failure },
        Transition::Cancel,
    ];
    let mut jobs: Vec<Job> = Vec::new();
    for (id, end) in ids.into_iter().zip(ends) {
        jobs.push(store.transition(id, end).await.expect("not ended"));
    }
    let webhooks = all(fixture).await;
    let found: Vec<WebhookId> = webhooks.iter().map(|webhook| webhook.id).collect();
    assert_eq!(found, ids.map(WebhookId::of));
    for (webhook, job) in webhooks.iter().zip(&jobs) {
        let expected = OutboxEntry::of(job, job.finished_at.expect("ended"));
        assert_eq!(Some(webhook), expected.as_ref());
        assert_eq!(webhook.receiver, "receiver.example:8443");
    }
}

/// Then it is another's, and the first can say nothing about it any more.
pub async fn one_sender_gets_a_webhook_until_its_lease_is_over(fixture: &Fixture) {
    let outbox = &*fixture.outbox;
    let waiting = {
        let outbox = Arc::clone(&fixture.outbox);
        tokio::spawn(async move { outbox.take(LEASE, &SendingTurn::default()).await })
    };
    tokio::time::sleep(A_MOMENT).await;
    assert!(!waiting.is_finished());
    let (id, _) = ended(fixture, "https://a.example/").await;
    let first = waiting.await.expect("no panic").expect("readable");
    assert_eq!((first.job(), first.sendings, first.in_round), (id, 1, 1));
    nothing_to_take(fixture).await;
    fixture.pass(LEASE).await;
    let second = taken(fixture, &[]).await;
    assert_eq!(
        (second.id, second.sendings, second.in_round),
        (first.id, 2, 2),
        "the same message"
    );
    expect_lost(
        outbox
            .settle(first.id, first.sendings, Settlement::Delivered)
            .await,
    );
    assert_eq!(all(fixture).await, std::slice::from_ref(&second));
    let settled = outbox
        .settle(second.id, second.sendings, Settlement::Delivered)
        .await;
    assert_eq!(settled.expect("the latest").state, OutboxState::Delivered);
}

/// Delivered or dead, it stays so, and says why.
pub async fn what_is_settled_is_not_sent_again(fixture: &Fixture) {
    let outbox = &*fixture.outbox;
    let unknown = outbox
        .settle(WebhookId::of(JobId::new()), 1, Settlement::Delivered)
        .await;
    assert!(
        matches!(unknown, Err(JobsError::WebhookNotFound { .. })),
        "{unknown:?}"
    );
    let dead = Settlement::Dead {
        problem: PROBLEM.to_owned(),
    };
    for (settlement, state, problem) in [
        (Settlement::Delivered, OutboxState::Delivered, None),
        (dead, OutboxState::Dead, Some(PROBLEM)),
    ] {
        ended(fixture, "https://a.example/").await;
        let webhook = taken(fixture, &[]).await;
        let settled = outbox
            .settle(webhook.id, webhook.sendings, settlement.clone())
            .await
            .expect("the latest");
        assert_eq!((settled.state, settled.problem.as_deref()), (state, problem));
        fixture.pass(LEASE).await;
        nothing_to_take(fixture).await;
        expect_lost(outbox.settle(webhook.id, webhook.sendings, settlement).await);
        let kept = all(fixture).await;
        assert!(kept.contains(&settled), "{kept:?}");
    }
}

/// And one that is due earlier comes first.
pub async fn a_webhook_comes_again_when_it_is_due(fixture: &Fixture) {
    let outbox = &*fixture.outbox;
    let (_, now) = ended(fixture, "https://a.example/").await;
    let webhook = taken(fixture, &[]).await;
    let due = now + Duration::from_secs(4);
    let again = Settlement::Again {
        due,
        problem: PROBLEM.to_owned(),
    };
    let settled = outbox
        .settle(webhook.id, webhook.sendings, again)
        .await
        .expect("the latest");
    assert_eq!(
        (settled.state, settled.due, settled.problem.as_deref()),
        (OutboxState::Pending, due, Some(PROBLEM))
    );
    nothing_to_take(fixture).await;
    fixture.pass(Duration::from_secs(1)).await;
    let (other, _) = ended(fixture, "https://a.example/").await;
    assert_eq!(taken(fixture, &[]).await.job(), other);
    let waiting = {
        let outbox = Arc::clone(&fixture.outbox);
        tokio::spawn(async move {
            outbox
                .take(Duration::from_secs(3600), &SendingTurn::default())
                .await
        })
    };
    tokio::time::sleep(A_MOMENT).await;
    fixture.pass(Duration::from_secs(4)).await;
    let first = waiting.await.expect("no panic").expect("readable");
    let second = taken(fixture, &[]).await;
    assert!(first.id == webhook.id || second.id == webhook.id);
}

/// Who asks for other receivers' waits until there is one, and the others are not lost.
pub async fn the_webhooks_of_some_receivers_are_left(fixture: &Fixture) {
    let (left, _) = ended(fixture, "https://dead.example/a").await;
    let except = ["dead.example".to_owned()];
    let waiting = {
        let (outbox, except) = (Arc::clone(&fixture.outbox), except.clone());
        tokio::spawn(async move { outbox.take(LEASE, &except_receivers(&except)).await })
    };
    tokio::time::sleep(A_MOMENT).await;
    assert!(!waiting.is_finished());
    let (other, _) = ended(fixture, "https://well.example/").await;
    let webhook = waiting.await.expect("no panic").expect("readable");
    assert_eq!(webhook.job(), other);
    assert_eq!(taken(fixture, &[]).await.job(), left);
}

/// Whoever has few sendings under way comes before who has many, however long those wait, and who has enough gets no more.
pub async fn owners_get_their_webhooks_sent_in_turns(fixture: &Fixture) {
    let mut ids = Vec::new();
    for owner in ["greedy", "greedy", "modest"] {
        let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
        job.owner = ApiKeyId::new(owner);
        job.delivery.webhook = Some(format!("https://{}.example/", job.id));
        ids.push(job.id);
        insert(&*fixture.store, job).await;
        let ended = fixture
            .store
            .transition(ids[ids.len() - 1], Transition::Cancel)
            .await;
        ended.expect("queued");
        fixture.pass(Duration::from_millis(20)).await;
    }
    let with = |greedy, of_an_owner| SendingTurn {
        under_way: [(ApiKeyId::new("greedy"), greedy)].into(),
        of_an_owner,
        ..SendingTurn::default()
    };
    assert_eq!(taken_by(fixture, &with(1, 2)).await.job(), ids[2]);
    let waiting = tokio::time::timeout(A_MOMENT, fixture.outbox.take(LEASE, &with(2, 2))).await;
    assert!(waiting.is_err(), "it has enough: {waiting:?}");
    assert_eq!(taken_by(fixture, &with(1, 2)).await.job(), ids[0]);
    assert_eq!(taken_by(fixture, &with(0, 2)).await.job(), ids[1]);
}

/// Whatever has become of it.
pub async fn a_replay_sends_it_again_under_its_id(fixture: &Fixture) {
    let outbox = &*fixture.outbox;
    let unknown = outbox.replay(WebhookId::of(JobId::new())).await;
    assert!(
        matches!(unknown, Err(JobsError::WebhookNotFound { .. })),
        "{unknown:?}"
    );
    let (id, began) = ended(fixture, "https://a.example/").await;
    let mut webhook = taken(fixture, &[]).await;
    let dead = Settlement::Dead {
        problem: PROBLEM.to_owned(),
    };
    for settlement in [dead, Settlement::Delivered] {
        outbox
            .settle(webhook.id, webhook.sendings, settlement)
            .await
            .expect("the latest");
        fixture.pass(Duration::from_millis(20)).await;
        let replayed = outbox.replay(webhook.id).await.expect("known");
        assert_eq!((replayed.state, replayed.in_round), (OutboxState::Pending, 0));
        assert!(replayed.round_began > began, "it is young again");
        let sendings = webhook.sendings;
        webhook = taken(fixture, &[]).await;
        assert_eq!(
            (webhook.job(), webhook.sendings, webhook.in_round),
            (id, sendings + 1, 1)
        );
    }
    // While it is being sent, whether that ends before it is taken again or after.
    outbox.replay(webhook.id).await.expect("known");
    expect_lost(
        outbox
            .settle(webhook.id, webhook.sendings, Settlement::Delivered)
            .await,
    );
    let again = taken(fixture, &[]).await;
    expect_lost(
        outbox
            .settle(webhook.id, webhook.sendings, Settlement::Delivered)
            .await,
    );
    outbox
        .settle(again.id, again.sendings, Settlement::Delivered)
        .await
        .expect("the latest");
}

/// Only what is still to be sent.
pub async fn what_is_pending_too_long_is_given_up(fixture: &Fixture) {
    let outbox = &*fixture.outbox;
    ended(fixture, "https://a.example/").await;
    let delivered = taken(fixture, &[]).await;
    outbox
        .settle(delivered.id, delivered.sendings, Settlement::Delivered)
        .await
        .expect("the latest");
    let (old, _) = ended(fixture, "https://a.example/").await;
    fixture.pass(Duration::from_millis(20)).await;
    let (young, now) = ended(fixture, "https://a.example/").await;
    assert_eq!(outbox.give_up(now, PROBLEM).await.expect("readable"), 1);
    assert_eq!(outbox.give_up(now, PROBLEM).await.expect("readable"), 0);
    let webhooks = all(fixture).await;
    let of = |job| {
        let found = webhooks.iter().find(|webhook| webhook.job() == job);
        found.map(|webhook| (webhook.state, webhook.problem.as_deref()))
    };
    assert_eq!(of(delivered.job()), Some((OutboxState::Delivered, None)));
    assert_eq!(of(old), Some((OutboxState::Dead, Some(PROBLEM))));
    assert_eq!(of(young), Some((OutboxState::Pending, None)));
    assert_eq!(taken(fixture, &[]).await.job(), young);
}

/// Then it expires with its webhook.
pub async fn a_job_is_kept_until_its_end_is_told(fixture: &Fixture) {
    let (store, outbox) = (&*fixture.store, &*fixture.outbox);
    let (id, now) = ended(fixture, "https://a.example/").await;
    let later = now + Duration::from_secs(1);
    assert_eq!(store.expire(later).await.expect("readable"), []);
    let webhook = taken(fixture, &[]).await;
    assert_eq!(store.expire(later).await.expect("readable"), []);
    assert!(store.get(id).await.expect("readable").is_some());
    outbox
        .settle(webhook.id, webhook.sendings, Settlement::Delivered)
        .await
        .expect("the latest");
    assert_eq!(store.expire(later).await.expect("readable"), [id]);
    assert_eq!(all(fixture).await, []);
    let gone = outbox.replay(webhook.id).await;
    assert!(matches!(gone, Err(JobsError::WebhookNotFound { .. })), "{gone:?}");
}

/// State, owner, job, page.
pub async fn webhooks_are_filtered_and_paged(fixture: &Fixture) {
    let mut ids = Vec::new();
    for owner in ["alice", "bob", "bob"] {
        let mut job = sample_job(JobId::new(), SystemTime::UNIX_EPOCH);
        job.owner = ApiKeyId::new(owner);
        job.delivery.webhook = Some("https://a.example/".to_owned());
        ids.push(WebhookId::of(job.id));
        insert(&*fixture.store, job).await;
    }
    ids.sort_unstable();
    for id in &ids {
        let ended = fixture.store.transition(id.job(), Transition::Cancel).await;
        ended.expect("queued");
    }
    let list = async |filter: OutboxFilter| -> Vec<WebhookId> {
        let webhooks = fixture.outbox.webhooks(&filter).await.expect("readable");
        webhooks.into_iter().map(|webhook| webhook.id).collect()
    };
    assert_eq!(list(OutboxFilter::default()).await, ids);
    let page = OutboxFilter {
        after: Some(ids[0]),
        limit: 1,
        ..OutboxFilter::default()
    };
    assert_eq!(list(page).await, [ids[1]]);
    let alice = OutboxFilter {
        owner: Some(ApiKeyId::new("alice")),
        ..OutboxFilter::default()
    };
    assert_eq!(list(alice).await.len(), 1);
    let of_job = OutboxFilter {
        job: Some(ids[2].job()),
        ..OutboxFilter::default()
    };
    assert_eq!(list(of_job).await, [ids[2]]);
    let webhook = taken(fixture, &[]).await;
    let settled = fixture
        .outbox
        .settle(webhook.id, webhook.sendings, Settlement::Delivered)
        .await;
    settled.expect("the latest");
    let delivered = OutboxFilter {
        states: vec![OutboxState::Delivered, OutboxState::Dead],
        ..OutboxFilter::default()
    };
    assert_eq!(list(delivered).await, [webhook.id]);
}

/// Also one that is being sent.
pub async fn a_removed_job_takes_its_webhook_along(fixture: &Fixture) {
    let (sent, waiting) = (
        ended(fixture, "https://a.example/").await.0,
        ended(fixture, "https://b.example/").await.0,
    );
    let webhook = taken(fixture, &["b.example".to_owned()]).await;
    assert_eq!(webhook.job(), sent);
    for id in [sent, waiting] {
        assert!(fixture.store.remove(id).await.expect("readable"));
    }
    assert_eq!(all(fixture).await, []);
    let settled = fixture
        .outbox
        .settle(webhook.id, webhook.sendings, Settlement::Delivered)
        .await;
    assert!(
        matches!(settled, Err(JobsError::WebhookNotFound { .. })),
        "{settled:?}"
    );
    fixture.pass(2 * LEASE).await;
    nothing_to_take(fixture).await;
}
