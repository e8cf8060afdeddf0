//! What is answered for a job: its images, that it is still running, or why it failed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pentimento_service::{LastingLink, finished_images};
use pentimento_types::{Job, JobNote, NoiseSpacing, SafetyPolicy, StoredImage};
use serde_json::{Value, json};

use super::convert::yes_no;
use super::error::ModelsLabError;
use super::note::Note;
use super::number;
use crate::AppState;
use crate::base_url::BaseUrl;
use crate::config::ModelsLabConfig;

/// The reply for a job in whatever state it is.
pub(super) async fn of(app: &AppState, base: &BaseUrl, job: &Job) -> Result<Value, ModelsLabError> {
    let (note, config) = (Note::of(job), &app.config.modelslab);
    let link = |index, life| app.service.lasting_link(job, index, life);
    let links = links(&link, config, base, job);
    if !job.state.is_final() {
        return Ok(processing(app, base, job, &note, &links));
    }
    let images = finished_images(job).map_err(|failure| ModelsLabError::JobFailed {
        number: number::of(job),
        failure,
    })?;
    let mut reply = success(job, &note, images, &links);
    if job.delivery.base64 && config.inline_base64 {
        let mut output = Vec::new();
        for image in images {
            output.push(STANDARD.encode(app.service.picture(image).await?));
        }
        reply["output"] = json!(output);
    }
    Ok(reply)
}

/// For a job that has its images.
pub(super) fn success(job: &Job, note: &Note, images: &[StoredImage], links: &[String]) -> Value {
    let took = job
        .finished_at
        .and_then(|end| end.duration_since(job.started_at?).ok())
        .unwrap_or_default();
    let is_unsafe = |image: &StoredImage| image.findings.nsfw == Some(true);
    let unsafe_images: Vec<bool> = images.iter().map(is_unsafe).collect();
    let mut reply = json!({
        "status": "success",
        "generationTime": took.as_secs_f64(),
        "id": number::of(job),
        "output": links,
        "proxy_links": links,
        "future_links": links,
        "image_links": links,
        // Clients test both as flags; an image that nobody has looked at has none.
        "nsfw_content_detected": unsafe_images.contains(&true),
        "has_nsfw_concept": unsafe_images,
        "webhook_status": "",
        "meta": meta(job, note),
    });
    // What was left open is known by now.
    if let Some(size) = images.first().map(|image| image.size) {
        for (names, side) in [(["W", "width"], size.width), (["H", "height"], size.height)] {
            for name in names {
                reply["meta"][name] = side.into();
            }
        }
    }
    if let Some(warning) = warning(note, &job.notes) {
        reply["warning"] = warning.into();
    }
    reply
}

fn processing(app: &AppState, base: &BaseUrl, job: &Job, note: &Note, links: &[String]) -> Value {
    const MESSAGE: &str = "Try to fetch request after seconds estimated";
    let id = number::of(job);
    let mut reply = json!({
        "status": "processing",
        "tip": "Your request is processing in background, you can get this image by calling the fetch_result address",
        "eta": eta_seconds(time_left(app, job)),
        "messege": MESSAGE,
        "message": MESSAGE,
        "webhook_status": "",
        "fetch_result": base.join(&format!("/api/v1/enterprise/fetch/{id}")),
        "id": id,
        "output": [],
        "image_links": links,
        "future_links": links,
        "meta": meta(job, note),
    });
    if let Some(warning) = warning(note, &job.notes) {
        reply["warning"] = warning.into();
    }
    reply
}

/// What had no effect, and how the images were read where that is not plain.
fn warning(note: &Note, of_service: &[JobNote]) -> Option<String> {
    let of_service = of_service.iter().map(ToString::to_string);
    let sentences: Vec<String> = note.warning.clone().into_iter().chain(of_service).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// One address for each image, the same before and after it is made.
pub(super) fn links(
    link: LastingLink<'_>,
    config: &ModelsLabConfig,
    base: &BaseUrl,
    job: &Job,
) -> Vec<String> {
    let life = job.delivery.link_life.unwrap_or(config.link_life);
    (0..job.recipe.image_count)
        .map(|index| base.join(&link(index, life)))
        .collect()
}

fn meta(job: &Job, note: &Note) -> Value {
    let mut meta = note.meta.clone();
    // What runs, also where the caller left it to the checkpoint.
    let scheduler = &job.recipe.scheduler;
    if let Some(kind) = scheduler.kind {
        meta.insert("scheduler".to_owned(), kind.class_name().into());
    }
    let karras = yes_no(scheduler.spacing == NoiseSpacing::Karras);
    meta.insert("use_karras_sigmas".to_owned(), karras.into());
    let checked = yes_no(job.delivery.safety != SafetyPolicy::Off);
    for name in ["safetychecker", "safety_checker"] {
        meta.insert(name.to_owned(), checked.into());
    }
    // With the words that were added to them.
    meta.insert("prompt".to_owned(), job.recipe.prompt.as_str().into());
    let negative = job.recipe.negative_text();
    meta.insert("negative_prompt".to_owned(), negative.into());
    meta.insert("file_prefix".to_owned(), job.id.as_uuid().to_string().into());
    meta.insert("id".to_owned(), number::of(job).to_string().into());
    Value::Object(meta)
}

/// Of a job that nobody has forecast yet it is at most as long as everything that waits.
fn time_left(app: &AppState, job: &Job) -> Option<Duration> {
    let left = app.service.time_left(job.id);
    left.or_else(|| (!job.state.is_final()).then(|| app.service.queue_time()))
}

/// Whole seconds, rounded up: clients sleep exactly this long and then fetch once, so it is never zero.
fn eta_seconds(left: Option<Duration>) -> u64 {
    // None ends just now, or is not of this process.
    whole_seconds(left.unwrap_or_default()).max(1)
}

/// Rounded up.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sleeps_until_the_eta_does_not_come_early() {
        let eta = |ms| eta_seconds(Some(Duration::from_millis(ms)));
        assert_eq!(
            [eta(0), eta(1), eta(1000), eta(1001), eta(59_000)],
            [1, 1, 1, 2, 59]
        );
        assert_eq!(eta_seconds(None), 1);
    }

    #[test]
    fn a_warning_holds_what_the_dialect_and_the_service_say() {
        let note = |warning: Option<&str>| Note {
            warning: warning.map(str::to_owned),
            ..Note::default()
        };
        assert_eq!(warning(&note(None), &[]), None);
        assert_eq!(warning(&note(Some("One.")), &[]).as_deref(), Some("One."));
        let both = warning(&note(Some("One.")), &[JobNote::MaskIsAlpha]).unwrap();
        assert_eq!(both, format!("One. {}", JobNote::MaskIsAlpha));
        let text = warning(&note(None), &[JobNote::MaskIsAlpha]).unwrap();
        assert!(text.contains("alpha channel") && text.ends_with('.'), "{text}");
    }
}
