//! What this dialect keeps with a job, so that it can answer for it later as it would have at once.

use pentimento_types::Job;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Kept as JSON in the job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// The reply's `meta`, but for what is known only with the job.
    pub(super) meta: Map<String, Value>,
    /// What had no effect.
    pub(super) warning: Option<String>,
    /// The start of the caller's links, for who is told of the end of the job by webhook.
    pub(super) base: String,
    /// As it came: text, number or null. Sent back with the webhook.
    pub(super) track_id: Value,
}

impl Note {
    /// The note of a job; an empty one for jobs of other dialects.
    pub(super) fn of(job: &Job) -> Self {
        let text = job.dialect.note.as_deref().unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and maps with text keys can always be written")
    }
}
