//! `{"images", "parameters", "info"}`: the images of a call's jobs in base64, what was sent, and how each image was made.
//!
//! Files and their text are in the account of replies until the last byte has left.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use pentimento_service::image_codec::ImageMetadata;
use pentimento_service::{ServiceError, finished_images};
use pentimento_types::{Job, MemoryUse, Reservation, StoredImage};
use serde_json::{Value, json};

use super::convert::ParsedCall;
use super::error::A1111Error;
use super::fields::{INIT_IMAGES, MASK};
use super::samplers;
use crate::AppState;

/// The files of a call, to be repeated in its reply.
#[derive(Debug)]
pub(super) struct SentImages {
    pub(super) init: Vec<Bytes>,
    pub(super) mask: Option<Bytes>,
}

/// The reply for jobs that have ended.
pub(super) async fn of(
    app: &AppState,
    jobs: &[Job],
    (parsed, sent): (ParsedCall, Option<SentImages>),
) -> Result<Response, A1111Error> {
    let mut images = Vec::new();
    for job in jobs {
        images.extend(finished_images(job)?.iter().map(|image| (job, image)));
    }
    let mut text = Text::new(app);
    text.push("{\"images\":[")?;
    if parsed.send_images {
        for (at, (_, image)) in images.iter().enumerate() {
            let file = app.service.linked_picture(image).await?;
            let bytes = app.service.read_linked(&file, 0..file.size).await?;
            text.push(if at == 0 { "\"" } else { ",\"" })?;
            text.push_base64(&bytes)?;
            text.push("\"")?;
        }
    }
    text.push("],\"parameters\":")?;
    // Its texts repeat the prompts for each image, and are written twice.
    let of_prompts = parsed.prompt.len() + parsed.negative_prompt.len() + 1024;
    let _room = text.room(of_prompts.saturating_mul(8 * images.len()))?;
    let info = info(jobs, &images, &parsed);
    let warning = warning(jobs, &parsed);
    let mut parameters = parsed.parameters;
    if sent.is_some() {
        parameters.remove(INIT_IMAGES.name);
        parameters.remove(MASK.name);
    }
    let written = Value::Object(parameters).to_string();
    match sent {
        None => text.push(&written)?,
        Some(sent) => {
            text.push(written.strip_suffix('}').unwrap_or(&written))?;
            text.push_sent(&sent)?;
            text.push("}")?;
        }
    }
    text.push(",\"info\":")?;
    text.push(&Value::String(info.to_string()).to_string())?;
    if let Some(warning) = warning {
        // Not in the original.
        text.push(",\"warning\":")?;
        text.push(&Value::String(warning).to_string())?;
    }
    text.push("}")?;
    Ok(text.into_response())
}

/// As `Processed.js` of A1111's `modules/processing.py`.
fn info(jobs: &[Job], images: &[(&Job, &StoredImage)], parsed: &ParsedCall) -> Value {
    let Some((first, first_image)) = images.first() else {
        return json!({});
    };
    let recipe = &first.recipe;
    let text = |(at, (job, image)): (usize, &(&Job, &StoredImage))| {
        // Which of its job's images it is; the seeds of a job go on by one.
        let index = image.seed.wrapping_sub(job.recipe.seed);
        let index = u32::try_from(index).unwrap_or_else(|_| u32::try_from(at).unwrap_or(0));
        ImageMetadata::new(&job.recipe, job.inputs.task(), index, image.size).parameters_text()
    };
    let texts: Vec<String> = images.iter().enumerate().map(text).collect();
    let seeds: Vec<u64> = images.iter().map(|(_, image)| image.seed).collect();
    let subseeds = vec![-1; seeds.len()];
    let size = recipe.framing.map_or(first_image.size, |framing| framing.size);
    let ended = jobs.iter().filter_map(|job| job.finished_at).max();
    json!({
        "prompt": parsed.prompt,
        "all_prompts": vec![&parsed.prompt; seeds.len()],
        "negative_prompt": parsed.negative_prompt,
        "all_negative_prompts": vec![&parsed.negative_prompt; seeds.len()],
        "seed": first_image.seed,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": subseeds,
        "subseed_strength": 0,
        "width": size.width,
        "height": size.height,
        "sampler_name": samplers::name_of(&recipe.scheduler),
        "cfg_scale": recipe.guidance_scale,
        "steps": recipe.steps,
        "batch_size": parsed.batch_size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": recipe.model.as_str(),
        "sd_model_hash": null,
        "sd_vae_name": recipe.vae.as_ref().map(|vae| vae.as_str()),
        "sd_vae_hash": null,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.inputs.init().map(|_| recipe.strength),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": ended.map(|time| DateTime::<Utc>::from(time).format("%Y%m%d%H%M%S").to_string()),
        "clip_skip": recipe.clip_skip,
        "is_using_inpainting_conditioning": false,
        // Not in the original.
        "job_ids": jobs.iter().map(|job| job.id.to_string()).collect::<Vec<_>>(),
    })
}

/// What of the call had no effect, and how it was read where that is not plain.
fn warning(jobs: &[Job], parsed: &ParsedCall) -> Option<String> {
    let mut sentences: Vec<String> = parsed.warning.iter().cloned().collect();
    for note in jobs.iter().flat_map(|job| &job.notes) {
        let sentence = note.to_string();
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// A reply that grows within its account.
struct Text<'a> {
    app: &'a AppState,
    text: String,
    rooms: Vec<Reservation>,
}

impl<'a> Text<'a> {
    const fn new(app: &'a AppState) -> Self {
        Self {
            app,
            text: String::new(),
            rooms: Vec::new(),
        }
    }

    fn push(&mut self, text: &str) -> Result<(), ServiceError> {
        self.make_room(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    fn push_base64(&mut self, bytes: &[u8]) -> Result<(), ServiceError> {
        self.make_room(bytes.len().div_ceil(3).saturating_mul(4))?;
        STANDARD.encode_string(bytes, &mut self.text);
        Ok(())
    }

    /// Beside the other parameters, of which there are some.
    fn push_sent(&mut self, sent: &SentImages) -> Result<(), ServiceError> {
        self.push(&format!(",\"{}\":[", INIT_IMAGES.name))?;
        for (at, file) in sent.init.iter().enumerate() {
            self.push(if at == 0 { "\"" } else { ",\"" })?;
            self.push_base64(file)?;
            self.push("\"")?;
        }
        self.push(&format!("],\"{}\":", MASK.name))?;
        let Some(mask) = &sent.mask else {
            return self.push("null");
        };
        self.push("\"")?;
        self.push_base64(mask)?;
        self.push("\"")
    }

    /// Room for something beside the text.
    fn room(&self, bytes: usize) -> Result<Reservation, ServiceError> {
        let room = self.app.memory.reserve(MemoryUse::Replies, bytes as u64);
        room.map_err(|_| ServiceError::RepliesFull)
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), ServiceError> {
        /// Shorter texts are not worth counting.
        const SMALL: usize = 4096;
        if bytes > SMALL {
            let room = self.room(bytes)?;
            self.rooms.push(room);
        }
        self.text.reserve_exact(bytes);
        Ok(())
    }

    fn into_response(self) -> Response {
        struct Held(
            String,
            #[expect(dead_code, reason = "given back when it is dropped")] Vec<Reservation>,
        );
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }
        let bytes = Bytes::from_owner(Held(self.text, self.rooms));
        ([(CONTENT_TYPE, "application/json")], Body::from(bytes)).into_response()
    }
}
