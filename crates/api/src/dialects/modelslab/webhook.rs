//! What the receiver of a webhook is told: the vendor's body, with what its consumers are known to read.

use bytes::Bytes;
use pentimento_service::{LastingLink, finished_images};
use pentimento_types::Job;
use serde_json::{Value, json};

use super::note::Note;
use super::{number, reply};
use crate::base_url::BaseUrl;
use crate::config::ModelsLabConfig;

/// The body for a job that has ended. Its links begin as those in the reply to the request.
pub(crate) fn webhook_body(link: LastingLink<'_>, config: &ModelsLabConfig, job: &Job) -> Bytes {
    let note = Note::of(job);
    let base = BaseUrl::stored(note.base.clone());
    let mut told = match finished_images(job) {
        Ok(images) => {
            let links = reply::links(link, config, &base, job);
            // Always links: a receiver should not have to take megabytes.
            reply::success(job, &note, images, &links)
        }
        Err(failure) => {
            let message = failure.to_string();
            json!({
                "status": "failed",
                "id": number::of(job),
                "message": message,
                "messege": message,
                "output": [],
            })
        }
    };
    // A text stays a text, and a number a number.
    told["track_id"] = Value::clone(&note.track_id);
    told.to_string().into()
}
