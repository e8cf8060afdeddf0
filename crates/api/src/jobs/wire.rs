//! A job as our own calls show it.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use pentimento_service::{Preview, Service, Standing};
use pentimento_types::{Job, JobId, JobOutcome, JobState, Progress, Recipe, Task};
use serde_json::{Value, json};

use super::query::name_of;
use crate::base_url::BaseUrl;

/// Characters of a prompt in a list, which may have many long ones.
const SHORT: usize = 200;

/// With everything that is known of it.
pub(super) fn whole(service: &Service, base: &BaseUrl, job: &Job) -> Value {
    describe((service, base), job, standing(service, job.id), usize::MAX)
}

/// The same of several, with prompts that are cut off after 200 characters.
pub(super) fn list(service: &Service, base: &BaseUrl, jobs: &[Job]) -> Vec<Value> {
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let standings = service.standings(&ids);
    let described = |(job, standing)| describe((service, base), job, standing, SHORT);
    jobs.iter().zip(standings).map(described).collect()
}

fn describe(
    (service, base): (&Service, &BaseUrl),
    job: &Job,
    standing: Standing,
    characters: usize,
) -> Value {
    let is_open = !job.state.is_final();
    let failure = match &job.outcome {
        Some(JobOutcome::Failed(failure)) => {
            json!({"kind": failure.kind.as_str(), "message": failure.message})
        }
        Some(JobOutcome::Succeeded(_) | JobOutcome::Cancelled) | None => Value::Null,
    };
    let images: Vec<Value> = service
        .links(job)
        .into_iter()
        .map(|(image, link)| {
            json!({
                "url": base.join(&link.path),
                "seconds_valid": link.ttl.as_secs(),
                "format": image.format.extension(),
                "width": image.size.width,
                "height": image.size.height,
                "seed": image.seed,
                "nsfw": image.findings.nsfw,
            })
        })
        .collect();
    json!({
        "id": job.id.to_string(),
        "state": name_of(job.state),
        "attempt": job.attempt,
        "dialect": job.dialect.name,
        "created_at": written(job.created_at),
        "started_at": job.started_at.map(written),
        "finished_at": job.finished_at.map(written),
        "progress": service.progress(job.id).filter(|_| is_open).map(progress),
        "queue_position": position(standing, job.state),
        "seconds_left": seconds_left(standing).filter(|_| is_open),
        "notes": job.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "recipe": recipe(&job.recipe, job.inputs.task(), characters),
        "images": images,
        "error": failure,
    })
}

/// Where a job is while it has not ended.
pub(super) fn state(standing: Standing, (state, attempt): (JobState, u32)) -> Value {
    json!({
        "state": name_of(state),
        "attempt": attempt,
        "queue_position": position(standing, state),
        "seconds_left": seconds_left(standing),
    })
}

/// Evaluations done and to do.
pub(super) fn progress(progress: Progress) -> Value {
    json!({"done": progress.done, "total": progress.total})
}

/// What an image looks like while it is made.
pub(super) fn preview(preview: &Preview) -> Value {
    use base64::Engine as _;
    json!({
        "image": preview.index,
        "done": preview.at.done,
        "total": preview.at.total,
        "width": preview.size.width,
        "height": preview.size.height,
        "content_type": "image/jpeg",
        "base64": base64::engine::general_purpose::STANDARD.encode(&preview.file),
    })
}

/// Which of the waiting jobs it is, from 1.
pub(super) fn position(standing: Standing, state: JobState) -> Option<usize> {
    standing.position.filter(|_| waits(state))
}

/// How a job stands among those that wait.
pub(super) fn standing(service: &Service, id: JobId) -> Standing {
    let of_one = service.standings(&[id]);
    of_one.first().copied().unwrap_or_default()
}

const fn waits(state: JobState) -> bool {
    match state {
        JobState::Fetching | JobState::Queued => true,
        JobState::Running | JobState::Succeeded | JobState::Failed | JobState::Cancelled => false,
    }
}

/// To a tenth.
fn seconds_left(standing: Standing) -> Option<f64> {
    let tenths = |left: Duration| (left.as_secs_f64() * 10.0).ceil() / 10.0;
    standing.time_left.map(tenths)
}

fn recipe(recipe: &Recipe, task: Task, characters: usize) -> Value {
    let loras: Vec<Value> = recipe
        .loras
        .iter()
        .map(|lora| json!({"name": lora.model.as_str(), "strength": lora.strength}))
        .collect();
    let embeddings: Vec<&str> = recipe
        .embeddings
        .iter()
        .map(|embedding| embedding.model.as_str())
        .collect();
    json!({
        "model": recipe.model.as_str(),
        "vae": recipe.vae.as_ref().map(|vae| vae.as_str()),
        "loras": loras,
        "embeddings": embeddings,
        "prompt": cut(&recipe.prompt, characters),
        "negative_prompt": recipe.negative_prompt.as_deref().map(|text| cut(text, characters)),
        "image_count": recipe.image_count,
        "steps": recipe.steps,
        "strength": recipe.strength,
        "guidance_scale": recipe.guidance_scale,
        "seed": recipe.seed,
        "clip_skip": recipe.clip_skip,
        "scheduler": recipe.scheduler.kind.map(|kind| kind.class_name()),
        "task": task.as_str(),
        "inpaint": task == Task::Inpainting,
        "differential_diffusion": recipe.differential_diffusion,
    })
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// As RFC 3339 has it, in UTC and to a millisecond.
fn written(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_long_prompts_are_written_short() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        assert_eq!(written(time), "2023-11-14T22:13:20.250Z");
        assert_eq!(cut("häuser", 2), "hä…");
        assert_eq!(cut("häuser", 6), "häuser");
    }
}
