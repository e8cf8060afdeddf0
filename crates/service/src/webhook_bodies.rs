//! What the receivers of webhooks are told. The dialect of a job knows, and it stands above this crate.

use std::time::Duration;

use bytes::Bytes;
use pentimento_types::Job;

/// The path to a picture of a job, by its number, that lives so long from the making of the job.
pub type LastingLink<'a> = &'a (dyn Fn(u32, Duration) -> String + Send + Sync);

/// What the receiver of a webhook is told of the end of a job.
pub trait WebhookBodies: Send + Sync + std::fmt::Debug {
    /// The body, in JSON, for a job that has ended. The same for every sending.
    fn body(&self, job: &Job, link: LastingLink<'_>) -> Bytes;
}
