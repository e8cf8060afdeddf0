//! Who is in the cluster, by what was heard: a view that owns no clock and asks nobody. Times come in as arguments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// A node that is silent for so long is taken for gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);
/// Nodes that are remembered; more are no cluster but somebody who makes names up.
const MOST: usize = 10_000;

/// What a node says of itself every few seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Announcement {
    /// Whether it answers callers.
    pub answers: bool,
    /// Whether it runs jobs.
    pub works: bool,
    /// Whether it is stopping.
    pub draining: bool,
    /// Of its program.
    pub version: String,
    /// What computes.
    pub device: String,
    /// In which numbers.
    pub precision: String,
    /// Room for weights in bytes.
    pub memory_bytes: u64,
    /// What of it is taken.
    pub held_bytes: u64,
    /// Jobs that it runs now.
    pub running: usize,
    /// Jobs that it would run at once.
    pub slots: usize,
    /// Images that it has made since its start.
    pub images: u64,
    /// What its device took for them.
    pub device_milliseconds: u64,
    /// Catalogue names of the checkpoints in its memory.
    pub resident_models: Vec<String>,
    /// Catalogue names of all models whose files it has; None where they are too many to tell.
    pub models: Option<Vec<String>>,
}

/// A node as it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub node: NodeId,
    /// Its latest word.
    pub says: Announcement,
    /// How long ago that was.
    pub heard: Duration,
}

/// All nodes that have been heard.
#[derive(Debug, Default)]
pub struct Members {
    heard: BTreeMap<NodeId, (Announcement, Instant)>,
}

impl Members {
    /// A node has spoken.
    pub fn note(&mut self, node: NodeId, says: Announcement, now: Instant) {
        self.heard
            .retain(|_, (_, at)| now.saturating_duration_since(*at) < SILENCE);
        if self.heard.len() < MOST || self.heard.contains_key(&node) {
            self.heard.insert(node, (says, now));
        }
    }

    /// A node has said that it goes.
    pub fn leave(&mut self, node: &NodeId) {
        self.heard.remove(node);
    }

    /// Those who are there, by name.
    #[must_use]
    pub fn live(&self, now: Instant) -> Vec<Member> {
        let heard = self.heard.iter().map(|(node, (says, at))| Member {
            node: node.clone(),
            says: says.clone(),
            heard: now.saturating_duration_since(*at),
        });
        heard.filter(|member| member.heard < SILENCE).collect()
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn names(members: &Members, now: Instant) -> Vec<String> {
        members
            .live(now)
            .into_iter()
            .map(|member| member.node.to_string())
            .collect()
    }

    #[test]
    fn a_node_is_there_while_it_speaks_and_for_a_while_after() {
        let (mut members, start) = (Members::default(), SystemClock.now());
        members.note(node("b"), Announcement::default(), start);
        members.note(node("a"), Announcement::default(), start + SILENCE / 2);
        assert_eq!(names(&members, start + SILENCE / 2), ["a", "b"]);
        assert_eq!(
            names(&members, start + SILENCE),
            ["a"],
            "b is silent for too long"
        );
        members.note(node("b"), Announcement::default(), start + SILENCE);
        assert_eq!(names(&members, start + SILENCE), ["a", "b"], "and speaks again");
        members.leave(&node("a"));
        assert_eq!(
            names(&members, start + SILENCE),
            ["b"],
            "who says that it goes is gone at once"
        );
    }

    #[test]
    fn the_latest_word_counts() {
        let (mut members, start) = (Members::default(), SystemClock.now());
        let later = Announcement {
            running: 3,
            ..Announcement::default()
        };
        members.note(node("a"), Announcement::default(), start);
        members.note(node("a"), later.clone(), start + SILENCE / 4);
        let live = members.live(start + SILENCE / 2);
        assert_eq!(
            (live.len(), &live[0].says, live[0].heard),
            (1, &later, SILENCE / 4)
        );
    }

    #[test]
    fn who_makes_names_up_fills_no_memory() {
        let (mut members, start) = (Members::default(), SystemClock.now());
        for k in 0..MOST + 10 {
            members.note(node(&format!("n{k}")), Announcement::default(), start);
        }
        assert_eq!(members.live(start).len(), MOST);
    }

    #[test]
    fn a_newer_node_says_more_and_an_older_one_less() {
        let newer: Announcement = serde_json::from_str(r#"{"works":true,"colour":"red"}"#).unwrap();
        assert!(newer.works && newer.models.is_none());
    }
}
