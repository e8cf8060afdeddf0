//! Every name on the broker: streams, buckets, keys, consumers and subjects.
//!
//! No text of a caller and no name of a model is part of one as it came: what goes into a subject is made of ids, of letters
//! and digits, and of hashes.

use pentimento_types::{ApiKeyId, JobId, ModelId};
use sha2::{Digest as _, Sha256};

use crate::NodeId;
use crate::settings::ClusterName;

/// The checkpoint of a job as a part of a subject: what can be read of its name, and a hash that tells alike names apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelToken(String);

impl ModelToken {
    /// The part of a name that stays readable.
    const READABLE: usize = 24;

    /// Of this checkpoint.
    #[must_use]
    pub fn of(model: &ModelId) -> Self {
        let name = model.as_str();
        let plain = name.chars().map(|c| c.to_ascii_lowercase());
        let plain = plain.map(|c| {
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                c
            } else {
                '-'
            }
        });
        let readable: String = plain.take(Self::READABLE).collect();
        Self(format!("{readable}-{}", hash(&[name.as_bytes()], 4)))
    }

    /// As it stands in subjects.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names of one cluster; several may share a broker.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    /// In lower case.
    cluster: String,
}

impl Subjects {
    pub(crate) fn of(cluster: &ClusterName) -> Self {
        Self {
            cluster: cluster.as_str().to_owned(),
        }
    }

    /// The stream of jobs that wait or run.
    pub(crate) fn work_stream(&self) -> String {
        format!("{}_WORK", self.cluster.to_ascii_uppercase())
    }

    /// All of its subjects.
    pub(crate) fn all_work(&self) -> String {
        format!("{}.work.>", self.cluster)
    }

    /// The jobs of one checkpoint.
    pub(crate) fn work_of(&self, model: &ModelToken) -> String {
        format!("{}.work.{}.*", self.cluster, model.0)
    }

    /// One job.
    pub(crate) fn work(&self, model: &ModelToken, job: JobId) -> String {
        format!("{}.work.{}.{}", self.cluster, model.0, job.as_uuid().simple())
    }

    /// One job of whatever checkpoint.
    pub(crate) fn work_of_job(&self, job: JobId) -> String {
        format!("{}.work.*.{}", self.cluster, job.as_uuid().simple())
    }

    /// What a subject of [`Subjects::work`] says.
    pub(crate) fn parse_work(&self, subject: &str) -> Option<(ModelToken, JobId)> {
        let rest = subject.strip_prefix(&self.cluster)?.strip_prefix(".work.")?;
        let (model, job) = rest.split_once('.')?;
        let job = job_of(job)?;
        Some((ModelToken(model.to_owned()), job))
    }

    /// The consumer of one checkpoint's jobs, which all nodes share.
    pub(crate) fn consumer(model: &ModelToken) -> String {
        model.0.clone()
    }

    /// The stream of messages that nobody can use.
    pub(crate) fn dead_stream(&self) -> String {
        format!("{}_DEAD", self.cluster.to_ascii_uppercase())
    }

    /// All of its subjects.
    pub(crate) fn all_dead(&self) -> String {
        format!("{}.dead.>", self.cluster)
    }

    /// Where messages go that were found in the stream of jobs.
    pub(crate) fn dead_work(&self) -> String {
        format!("{}.dead.work", self.cluster)
    }

    /// The bucket with the record of every job.
    pub(crate) fn jobs_bucket(&self) -> String {
        format!("{}_jobs", self.cluster)
    }

    /// The bucket that says who runs which job.
    pub(crate) fn leases_bucket(&self) -> String {
        format!("{}_leases", self.cluster)
    }

    /// The bucket of callers' names for requests and of dialects' numbers for jobs.
    pub(crate) fn names_bucket(&self) -> String {
        format!("{}_names", self.cluster)
    }

    /// The bucket of who is there.
    pub(crate) fn nodes_bucket(&self) -> String {
        format!("{}_nodes", self.cluster)
    }

    /// The bucket of what all nodes sign with.
    pub(crate) fn secrets_bucket(&self) -> String {
        format!("{}_secrets", self.cluster)
    }

    /// Told on it: how far a job is.
    pub(crate) fn progress(&self, job: JobId) -> String {
        format!("{}.progress.{}", self.cluster, job.as_uuid().simple())
    }

    /// The same of all jobs.
    pub(crate) fn all_progress(&self) -> String {
        format!("{}.progress.*", self.cluster)
    }

    /// Told on it: a job waits that nobody has.
    pub(crate) fn ready(&self) -> String {
        format!("{}.ready", self.cluster)
    }

    /// Told on it to the node that has accepted a job: what has become of its entry in the queue.
    pub(crate) fn home(&self, node: &NodeId) -> String {
        format!("{}.home.{node}", self.cluster)
    }
}

/// The key of a job in a bucket.
pub(crate) fn job_key(job: JobId) -> String {
    job.as_uuid().simple().to_string()
}

/// The job of such a key.
pub(crate) fn job_of(key: &str) -> Option<JobId> {
    // Strictly in the form that is written here: an id in another form would be a second key for the same job.
    let is_simple = key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_simple.then(|| key.parse().ok()).flatten()
}

/// The key of a caller's name for a request.
pub(crate) fn request_key(owner: &ApiKeyId, key: &str) -> String {
    format!("key.{}", hash(&[owner.as_str().as_bytes(), key.as_bytes()], 32))
}

/// The key of a dialect's number for a job.
pub(crate) fn number_key(dialect: &str, number: u64) -> String {
    format!(
        "number.{}",
        hash(&[dialect.as_bytes(), &number.to_be_bytes()], 32)
    )
}

/// The first `bytes` of a SHA-256 over all parts, in hexadecimal digits.
fn hash(parts: &[&[u8]], bytes: usize) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // With their lengths, or two lists of parts could run into the same text.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize();
    digest
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_model_is_called_its_token_is_one_part_of_a_subject() {
        for name in ["sd_xl base 1.0", "a.b.>", "*", "", "модель", &"x".repeat(300)] {
            let token = ModelToken::of(&ModelId::new(name));
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(
                token.as_str().chars().all(is_plain) && token.as_str().len() <= 33,
                "{token:?}"
            );
        }
        let token = |name| ModelToken::of(&ModelId::new(name));
        assert_ne!(token("a.b"), token("a-b"));
        assert!(
            token("dreamshaper.safetensors")
                .as_str()
                .starts_with("dreamshaper-safetensors-")
        );
    }

    #[test]
    fn a_subject_of_work_says_which_job_it_is() {
        let subjects = Subjects::of(&ClusterName::default());
        let (token, job) = (ModelToken::of(&ModelId::new("demo")), JobId::from_u128(7));
        let subject = subjects.work(&token, job);
        assert_eq!(subjects.parse_work(&subject), Some((token, job)));
        for odd in [
            "pentimento.work.demo",
            "x.work.a.b",
            "pentimento.work.a.job_00000000000000000000000000000007",
        ] {
            assert_eq!(subjects.parse_work(odd), None, "{odd}");
        }
    }

    #[test]
    fn two_callers_names_are_two_keys() {
        let key = |owner, key| request_key(&ApiKeyId::new(owner), key);
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(number_key("a", 1), number_key("b", 1));
    }
}
