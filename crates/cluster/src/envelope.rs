//! What is written to the broker: JSON with the version of its form beside it, small, and never with a picture in it.
//!
//! Nodes of two versions share a broker while a cluster is upgraded. A newer form is no fault: who does not know it leaves it
//! for a node that does.

use bytes::Bytes;
use pentimento_jobs::{ModelsBeside, QueueEntry};
use pentimento_types::{ApiKeyId, JOB_SCHEMA_VERSION, Job, JobId, ModelId, Priority};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The version of the forms here. A build for tests of upgrades takes itself for the next version, whose forms differ by the
/// number alone.
pub(crate) const ENVELOPE_VERSION: u32 = if cfg!(feature = "next-envelope") { 2 } else { 1 };

/// Bytes of the largest envelope. A broker takes 1 MiB in a message unless it is told otherwise, and thousands of these are
/// in the memory of every node.
pub(crate) const LARGEST: usize = 64 * 1024;

/// Why something cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A later version has written it.
    #[error("it has version {found}, and this node knows {known}")]
    Newer {
        /// Of the message.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// Nobody who can be trusted has written it.
    #[error("it is no message of a cluster of pentimento")]
    Malformed(#[source] serde_json::Error),
    /// It says it is about another job than the place where it was found.
    #[error("it is about another job")]
    Misplaced,
}

/// An envelope was larger than [`LARGEST`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge(pub(crate) usize);

/// What every form begins with.
#[derive(Deserialize)]
struct Head {
    v: u32,
}

/// The record of a job in the bucket that all nodes see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SharedJob {
    v: u32,
    /// The node that has accepted it: the one with its durable record.
    pub(crate) home: NodeId,
    /// The node that runs it.
    #[serde(default)]
    pub(crate) holder: Option<NodeId>,
    /// A random number that tells this write from others of the same record, where an answer of the broker was lost.
    #[serde(default)]
    write: u64,
    pub(crate) job: Job,
}

impl SharedJob {
    /// To be written once.
    pub(crate) fn new(home: NodeId, holder: Option<NodeId>, job: Job) -> Self {
        Self {
            v: ENVELOPE_VERSION,
            home,
            holder,
            write: rand::rng().random(),
            job,
        }
    }

    /// As it is written where the record has been in this form before: whoever could read it then can read it to its end, so
    /// that an older home hears what a newer worker has made.
    pub(crate) fn in_form(self, form: u32) -> Self {
        Self { v: form, ..self }
    }

    /// The version of its form.
    pub(crate) fn form(&self) -> u32 {
        self.v
    }

    /// As it is written.
    pub(crate) fn encode(&self) -> Result<Bytes, TooLarge> {
        encode(self)
    }

    /// What was written for this job.
    pub(crate) fn decode(bytes: &[u8], id: JobId) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Inside {
            job: JobHead,
        }
        #[derive(Deserialize)]
        struct JobHead {
            schema_version: u32,
        }
        check_version(bytes)?;
        let inside: Inside = serde_json::from_slice(bytes).map_err(Unreadable::Malformed)?;
        if inside.job.schema_version > JOB_SCHEMA_VERSION {
            return Err(Unreadable::Newer {
                found: inside.job.schema_version,
                known: JOB_SCHEMA_VERSION,
            });
        }
        let shared: Self = serde_json::from_slice(bytes).map_err(Unreadable::Malformed)?;
        if shared.job.id != id {
            return Err(Unreadable::Misplaced);
        }
        Ok(shared)
    }
}

/// An entry of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkMessage {
    v: u32,
    /// The node that has put it there, and is told what becomes of it.
    pub(crate) home: NodeId,
    job: JobId,
    owner: ApiKeyId,
    model: ModelId,
    /// Nothing in messages of nodes that do not tell it.
    #[serde(default)]
    beside: ModelsBeside,
    priority: Priority,
    work: u64,
}

impl WorkMessage {
    pub(crate) fn new(home: NodeId, entry: &QueueEntry) -> Self {
        Self {
            v: ENVELOPE_VERSION,
            home,
            job: entry.id,
            owner: entry.owner.clone(),
            model: entry.model.clone(),
            beside: entry.beside.clone(),
            priority: entry.priority,
            work: entry.work,
        }
    }

    pub(crate) fn encode(&self) -> Result<Bytes, TooLarge> {
        encode(self)
    }

    /// What was written for this job.
    pub(crate) fn decode(bytes: &[u8], id: JobId) -> Result<Self, Unreadable> {
        check_version(bytes)?;
        let message: Self = serde_json::from_slice(bytes).map_err(Unreadable::Malformed)?;
        if message.job != id {
            return Err(Unreadable::Misplaced);
        }
        Ok(message)
    }

    /// The entry that it was made of.
    pub(crate) fn entry(&self) -> QueueEntry {
        QueueEntry {
            id: self.job,
            owner: self.owner.clone(),
            model: self.model.clone(),
            beside: self.beside.clone(),
            stays: false,
            priority: self.priority,
            work: self.work,
        }
    }
}

/// Who runs a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) node: NodeId,
    /// Tells this claim from others of the node.
    pub(crate) token: u64,
    /// The number of the message that was claimed, in its stream.
    pub(crate) sequence: u64,
}

/// Which job has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameHolder {
    pub(crate) job: JobId,
    /// The node that accepts the job; nothing in names of older nodes.
    #[serde(default)]
    pub(crate) home: Option<NodeId>,
}

/// What [`Lease`] and [`NameHolder`] are written as.
pub(crate) fn plain<T: Serialize>(value: &T) -> Bytes {
    // Ids and numbers: there is nothing in them that could not be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Reads what [`plain`] wrote; None for anything else.
pub(crate) fn read_plain<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

fn check_version(bytes: &[u8]) -> Result<(), Unreadable> {
    let Head { v } = serde_json::from_slice(bytes).map_err(Unreadable::Malformed)?;
    if v > ENVELOPE_VERSION {
        return Err(Unreadable::Newer {
            found: v,
            known: ENVELOPE_VERSION,
        });
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, TooLarge> {
    // A record can always be written; one that cannot is as good as too large.
    let bytes = serde_json::to_vec(value).map_err(|_| TooLarge(usize::MAX))?;
    if bytes.len() > LARGEST {
        return Err(TooLarge(bytes.len()));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pentimento_jobs::conformance::sample_job;
    use serde_json::Value;

    use super::*;

    fn shared() -> SharedJob {
        let home = "a".parse().unwrap();
        SharedJob::new(
            home,
            None,
            sample_job(JobId::from_u128(7), SystemTime::UNIX_EPOCH),
        )
    }

    fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut value: Value = serde_json::from_slice(&shared().encode().unwrap()).unwrap();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    }

    #[test]
    fn a_record_is_read_back_whole() {
        let shared = shared();
        let bytes = shared.encode().unwrap();
        assert_eq!(SharedJob::decode(&bytes, JobId::from_u128(7)).unwrap(), shared);
        let entry = QueueEntry::of(&shared.job);
        let message = WorkMessage::new("a".parse().unwrap(), &entry).encode().unwrap();
        let message = WorkMessage::decode(&message, JobId::from_u128(7)).unwrap();
        assert_eq!(message.entry(), entry);
    }

    #[test]
    fn a_queue_entry_has_all_models_of_its_job_and_an_older_nodes_has_only_the_checkpoint() {
        let mut job = shared().job;
        job.recipe.vae = Some(ModelId::new("v"));
        job.recipe.loras = [("l", 1.0), ("unused", 0.0)]
            .map(|(name, strength)| pentimento_types::LoraRef {
                model: ModelId::new(name),
                strength,
            })
            .to_vec();
        let entry = QueueEntry::of(&job);
        let names = (entry.beside.vae.as_ref(), &*entry.beside.loras);
        assert_eq!(names, (Some(&ModelId::new("v")), &[ModelId::new("l")][..]));
        let bytes = WorkMessage::new("a".parse().unwrap(), &entry).encode().unwrap();
        assert_eq!(WorkMessage::decode(&bytes, entry.id).unwrap().entry(), entry);
        let mut older: Value = serde_json::from_slice(&bytes).unwrap();
        older.as_object_mut().unwrap().remove("beside");
        let older = WorkMessage::decode(older.to_string().as_bytes(), entry.id).unwrap();
        assert_eq!(older.entry().beside, ModelsBeside::default());
    }

    #[test]
    fn what_a_newer_node_has_written_is_known_as_such_whatever_is_in_it() {
        let id = JobId::from_u128(7);
        let newer = with(|value| value["v"] = 2.into());
        assert!(matches!(
            SharedJob::decode(&newer, id),
            Err(Unreadable::Newer { found: 2, known: 1 })
        ));
        let newer = with(|value| {
            value["job"] = serde_json::json!({"schema_version": JOB_SCHEMA_VERSION + 1, "pixels": "other"});
        });
        assert!(matches!(
            SharedJob::decode(&newer, id),
            Err(Unreadable::Newer { .. })
        ));
        let message = br#"{"v": 9, "what": "ever"}"#;
        assert!(matches!(
            WorkMessage::decode(message, id),
            Err(Unreadable::Newer { found: 9, .. })
        ));
    }

    #[test]
    fn a_field_that_a_newer_node_has_added_is_read_over() {
        let added = with(|value| value["tint"] = "blue".into());
        let read = SharedJob::decode(&added, JobId::from_u128(7)).unwrap();
        assert_eq!(read.job, shared().job);
    }

    #[test]
    fn nonsense_and_what_lies_in_the_wrong_place_are_refused() {
        let id = JobId::from_u128(7);
        for nonsense in [&b""[..], b"{", b"[]", b"\xff\xfe", b"{\"v\": 1}", b"{\"v\": -1}"] {
            assert!(matches!(
                SharedJob::decode(nonsense, id),
                Err(Unreadable::Malformed(_))
            ));
            assert!(matches!(
                WorkMessage::decode(nonsense, id),
                Err(Unreadable::Malformed(_))
            ));
        }
        let bytes = shared().encode().unwrap();
        let other = SharedJob::decode(&bytes, JobId::from_u128(8));
        assert!(matches!(other, Err(Unreadable::Misplaced)));
    }

    #[test]
    fn a_record_beyond_the_bound_is_not_written() {
        let mut large = shared();
        large.job.recipe.prompt = "x".repeat(LARGEST);
        assert!(matches!(large.encode(), Err(TooLarge(bytes)) if bytes > LARGEST));
    }
}
