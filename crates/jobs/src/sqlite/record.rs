//! A job as it is stored: JSON with a checksum, so that a flipped bit is found before anybody believes it.

use std::time::SystemTime;

use pentimento_types::{ApiKeyId, DialectTag, Idempotency, JOB_SCHEMA_VERSION, Job, JobId, JobState};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// What a row takes beside its record, about.
const BESIDE: u64 = 1024;

/// A record to be written.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) text: String,
    pub(super) checksum: [u8; 32],
}

/// Why a stored record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    /// Some bit is not as it was written.
    #[error("the record of the job does not fit its checksum")]
    Checksum,
    /// Written as it is, and no job.
    #[error("the record of the job cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Written by a later version, into a file of this one.
    #[error("the record of the job has version {0}, and this program knows {JOB_SCHEMA_VERSION}")]
    Newer(u32),
}

/// What the columns of a row are made of.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) schema_version: u32,
    pub(super) id: JobId,
    pub(super) owner: ApiKeyId,
    pub(super) state: JobState,
    pub(super) finished_at: Option<SystemTime>,
    pub(super) dialect: DialectTag,
    #[serde(default)]
    pub(super) idempotency: Option<Idempotency>,
}

impl Record {
    pub(super) fn of(job: &Job) -> Result<Self, serde_json::Error> {
        let text = serde_json::to_string(job)?;
        let checksum = Sha256::digest(text.as_bytes()).into();
        Ok(Self { text, checksum })
    }

    /// What it counts against the bound on ended jobs.
    pub(super) fn bytes(&self) -> u64 {
        BESIDE + self.text.len() as u64
    }
}

/// Looks at a stored record without reading all of it.
pub(super) fn head(text: &[u8], checksum: &[u8]) -> Result<Head, Damage> {
    let head: Head = read(text, checksum)?;
    if head.schema_version > JOB_SCHEMA_VERSION {
        return Err(Damage::Newer(head.schema_version));
    }
    Ok(head)
}

/// The job of a stored record.
pub(super) fn job(text: &[u8], checksum: &[u8]) -> Result<Job, Damage> {
    let job: Job = read(text, checksum)?;
    if job.schema_version > JOB_SCHEMA_VERSION {
        return Err(Damage::Newer(job.schema_version));
    }
    Ok(job)
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], checksum: &[u8]) -> Result<T, Damage> {
    if Sha256::digest(text)[..] != *checksum {
        return Err(Damage::Checksum);
    }
    serde_json::from_slice(text).map_err(Damage::Unreadable)
}

/// As it stands in the column.
pub(super) const fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Fetching => "fetching",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}
