//! What is answered for a finished job: links, or the files themselves, which are counted until the caller has them.

use axum::response::Response;
use bytes::Bytes;
use pentimento_service::{Service, finished_images};
use pentimento_types::{Job, StoredImage};
use serde_json::{Value, json};

use super::convert::ReplyStyle;
use super::error::OpenAiError;
use crate::base_url::BaseUrl;
use crate::pieces::{json_reply, members, with_text};

/// The reply to a call that is no stream.
pub(super) async fn of(
    (service, base): (&Service, &BaseUrl),
    job: &Job,
    style: ReplyStyle,
) -> Result<Response, OpenAiError> {
    let images = finished_images(job)?;
    let mut pieces = vec![Bytes::from_static(b"{\"data\":[")];
    for (at, image) in images.iter().enumerate() {
        if at > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        if style.links {
            let link = service.link(job, image);
            let item = json!({"url": base.join(&link.path), "seed": image.seed});
            pieces.push(item.to_string().into());
        } else {
            pieces.extend(with_file(
                service.picture_text(image).await?,
                &json!({"seed": image.seed}),
            ));
        }
    }
    let mut about = about(job, images, style);
    about["created"] = seconds(job).into();
    about["usage"] = usage();
    if !job.notes.is_empty() {
        let sentences: Vec<String> = job.notes.iter().map(ToString::to_string).collect();
        about["warning"] = sentences.join(" ").into();
    }
    pieces.push(Bytes::from_static(b"],"));
    pieces.push(members(&about));
    Ok(json_reply(pieces))
}

/// An object with a file in it.
pub(super) fn with_file(text: Bytes, others: &Value) -> [Bytes; 3] {
    with_text("b64_json", text, others)
}

/// What is the same for a reply and for the events of a stream.
pub(super) fn about(job: &Job, images: &[StoredImage], style: ReplyStyle) -> Value {
    json!({
        "background": "opaque",
        "output_format": job.delivery.format.as_str(),
        "quality": style.quality,
        "size": images.first().map(|image| image.size.to_string()),
    })
}

/// Nothing is billed by tokens here, and clients want to read the numbers.
pub(super) fn usage() -> Value {
    json!({
        "input_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "output_tokens": 0,
        "total_tokens": 0,
    })
}

/// When the job ended, in Unix seconds.
pub(super) fn seconds(job: &Job) -> u64 {
    let time = job.finished_at.unwrap_or(job.created_at);
    let since = time.duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
