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

/// One of the streams over which jobs are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WorkStream(u32);

/// The names of one cluster; several may share a broker.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    /// In lower case.
    cluster: String,
    /// Over how many streams the jobs that wait or run are spread, by their checkpoints.
    streams: u32,
}

impl Subjects {
    pub(crate) fn of(cluster: &ClusterName, streams: u32) -> Self {
        Self {
            cluster: cluster.as_str().to_owned(),
            streams: streams.max(1),
        }
    }

    /// The streams of jobs that wait or run.
    pub(crate) fn work_streams(&self) -> impl Iterator<Item = WorkStream> + use<> {
        (0..self.streams).map(WorkStream)
    }

    /// The one with the jobs of a checkpoint.
    pub(crate) fn stream_of(&self, model: &ModelToken) -> WorkStream {
        let digest = Sha256::digest(model.0.as_bytes());
        let number = digest
            .iter()
            .take(4)
            .fold(0, |number, byte| (number << 8) | u32::from(*byte));
        WorkStream(number % self.streams)
    }

    /// What a stream is called.
    pub(crate) fn work_stream(&self, stream: WorkStream) -> String {
        let cluster = self.cluster.to_ascii_uppercase();
        match stream.0 {
            // As it is where there is one only.
            0 => format!("{cluster}_WORK"),
            number => format!("{cluster}_WORK_{number}"),
        }
    }

    /// What the subjects of a stream begin with.
    fn work_prefix(&self, stream: WorkStream) -> String {
        match stream.0 {
            0 => format!("{}.work", self.cluster),
            number => format!("{}.work-{number}", self.cluster),
        }
    }

    /// All subjects of a stream.
    pub(crate) fn all_work(&self, stream: WorkStream) -> String {
        format!("{}.>", self.work_prefix(stream))
    }

    /// The jobs of one checkpoint.
    pub(crate) fn work_of(&self, model: &ModelToken) -> String {
        format!("{}.{}.*", self.work_prefix(self.stream_of(model)), model.0)
    }

    /// One job.
    pub(crate) fn work(&self, model: &ModelToken, job: JobId) -> String {
        let prefix = self.work_prefix(self.stream_of(model));
        format!("{prefix}.{}.{}", model.0, job.as_uuid().simple())
    }

    /// One job of whatever checkpoint of a stream.
    pub(crate) fn work_of_job(&self, stream: WorkStream, job: JobId) -> String {
        format!("{}.*.{}", self.work_prefix(stream), job.as_uuid().simple())
    }

    /// What a subject of [`Subjects::work`] says.
    pub(crate) fn parse_work(&self, subject: &str) -> Option<(ModelToken, JobId)> {
        let rest = subject.strip_prefix(&self.cluster)?.strip_prefix(".work")?;
        let (_, rest) = rest.split_once('.')?;
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

    /// Asked on it of a node: whether it has a job.
    pub(crate) fn ask(&self, node: &NodeId) -> String {
        format!("{}.ask.{node}", self.cluster)
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
        let subjects = Subjects::of(&ClusterName::default(), 1);
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
    fn checkpoints_are_spread_over_streams_and_one_stream_is_called_as_ever() {
        let (one, three) = (
            Subjects::of(&ClusterName::default(), 1),
            Subjects::of(&ClusterName::default(), 3),
        );
        let mut found = std::collections::BTreeMap::new();
        for model in 0..60 {
            let (token, job) = (
                ModelToken::of(&ModelId::new(format!("model {model}"))),
                JobId::from_u128(model),
            );
            let subject = three.work(&token, job);
            assert_eq!(three.parse_work(&subject), Some((token.clone(), job)));
            let stream = three.stream_of(&token);
            let all = three.all_work(stream);
            assert!(subject.starts_with(all.trim_end_matches('>')), "{subject} {all}");
            *found.entry(three.work_stream(stream)).or_insert(0) += 1;
            assert!(one.work(&token, job).starts_with("pentimento.work."));
        }
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["PENTIMENTO_WORK", "PENTIMENTO_WORK_1", "PENTIMENTO_WORK_2"]
        );
        assert!(found.values().all(|count| *count > 10), "{found:?}");
    }

    #[test]
    fn two_callers_names_are_two_keys() {
        let key = |owner, key| request_key(&ApiKeyId::new(owner), key);
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_ne!(number_key("a", 1), number_key("b", 1));
    }
}
