//! Nodes hear each other over a real broker.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pentimento_types::{Clock as _, JobId, Progress, SystemClock};

use super::{Broker, PATIENCE, new_cluster, programs, settings};
use crate::{Announcement, Announcer, Connection, NodeId, Presence};

/// Says the same again and again, and remembers what it hears.
#[derive(Debug, Default)]
struct Voice {
    says: Announcement,
    heard: Mutex<Vec<(JobId, u32, Progress)>>,
}

#[async_trait]
impl Announcer for Voice {
    async fn announcement(&self) -> Announcement {
        self.says.clone()
    }

    fn heard_progress(&self, job: JobId, attempt: u32, progress: Progress) {
        self.heard.lock().unwrap().push((job, attempt, progress));
    }
}

async fn presence(broker: &Broker, cluster: &str, name: &str) -> (Presence, Arc<Voice>) {
    let connection = Connection::open(settings(broker, cluster)).await.unwrap();
    let presence = Presence::new(name.parse().unwrap(), connection);
    let says = Announcement {
        works: true,
        device: name.to_owned(),
        models: Some(vec!["demo".to_owned()]),
        ..Announcement::default()
    };
    let voice = Arc::new(Voice {
        says,
        ..Voice::default()
    });
    presence.announce(Arc::clone(&voice) as Arc<dyn Announcer>).await;
    (presence, voice)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = SystemClock.now() + PATIENCE;
    while !holds() {
        assert!(SystemClock.now() < end, "it never comes that {what}");
        SystemClock
            .sleep_until(SystemClock.now() + std::time::Duration::from_millis(20))
            .await;
    }
}

fn names(presence: &Presence) -> Vec<String> {
    presence
        .live()
        .into_iter()
        .map(|member| member.node.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_each_other_until_one_goes_and_after_the_broker_was_away() {
    for program in programs() {
        let (mut broker, cluster) = (Broker::start(program, ""), new_cluster());
        let (a, _) = presence(&broker, &cluster, "a").await;
        let (b, _) = presence(&broker, &cluster, "b").await;
        until("both see both", || {
            names(&a) == ["a", "b"] && names(&b) == ["b", "a"]
        })
        .await;
        let says = a.live().remove(1).says;
        assert_eq!((says.works, says.device.as_str()), (true, "b"));
        // Who comes later sees at once who is there.
        let (c, _) = presence(&broker, &cluster, "c").await;
        until("the third sees them", || names(&c) == ["c", "a", "b"]).await;
        b.leave().await;
        drop(b);
        until("the first sees that the second is gone", || {
            names(&a) == ["a", "c"]
        })
        .await;
        broker.kill();
        broker.lose_its_disk();
        until("alone it sees itself", || names(&a) == ["a"] && !a.is_connected()).await;
        broker.start_again();
        until("they meet again", || {
            names(&a) == ["a", "c"] && names(&c) == ["c", "a"]
        })
        .await;
    }
}

/// Or callers would be told that there is no worker, because none is heard on a line that only looks open.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_line_that_is_cut_without_a_word_nothing_follows_from_the_silence_of_others() {
    let Some(program) = programs().pop() else { return };
    let (broker, cluster) = (Broker::start(program, ""), new_cluster());
    let (a, _) = presence(&broker, &cluster, "a").await;
    let (_b, _) = presence(&broker, &cluster, "b").await;
    until("both are heard", || a.is_connected() && names(&a).len() == 2).await;
    broker.freeze();
    until("the line is doubted", || {
        let (doubted, heard) = (!a.is_connected(), names(&a).len());
        assert!(
            doubted || heard == 2,
            "a worker is missed while the line is trusted"
        );
        doubted
    })
    .await;
    broker.thaw();
    until("the line is trusted again", || {
        let (trusted, heard) = (a.is_connected(), names(&a).len());
        assert!(
            !trusted || heard == 2,
            "a worker is missed while the line is trusted"
        );
        trusted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_heard_by_the_others_and_secrets_are_those_of_the_first() {
    for program in programs() {
        let (broker, cluster) = (Broker::start(program, ""), new_cluster());
        let (a, _) = presence(&broker, &cluster, "a").await;
        let (_b, voice) = presence(&broker, &cluster, "b").await;
        let word = (JobId::from_u128(7), 1, Progress { done: 3, total: 4 });
        until("a word arrives", || {
            a.tell_progress(word.0, word.1, word.2);
            voice.heard.lock().unwrap().contains(&word)
        })
        .await;
        let first = Connection::open(settings(&broker, &cluster)).await.unwrap();
        let second = Connection::open(settings(&broker, &cluster)).await.unwrap();
        assert_eq!(
            first.shared_secret("links", None).await.unwrap(),
            None,
            "a worker offers none"
        );
        assert_eq!(
            first.shared_secret("links", Some([1; 32])).await.unwrap(),
            Some([1; 32])
        );
        assert_eq!(first.shared_secret("links", None).await.unwrap(), Some([1; 32]));
        assert_eq!(
            second.shared_secret("links", Some([2; 32])).await.unwrap(),
            Some([1; 32])
        );
        assert_eq!(
            second.shared_secret("webhooks", Some([2; 32])).await.unwrap(),
            Some([2; 32])
        );
        let node: NodeId = "a".parse().unwrap();
        assert_eq!(*a.node(), node);
    }
}
