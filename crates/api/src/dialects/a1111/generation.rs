//! `img2img` and `txt2img`: a body becomes jobs, which are waited for, and their images the reply.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use pentimento_service::image_codec::MaskReading;
use pentimento_service::{Fit, InputLimits, Service, ServiceError, Submission, finished_images};
use pentimento_types::{ApiKeyId, DialectTag, Idempotency, ImageSource, Inputs, Job, JobId};

use super::NAME;
use super::auth::Caller;
use super::convert::{Call, Defaults, ParsedCall, Part, to_call};
use super::error::A1111Error;
use super::fields::{INIT_IMAGES, MAX_IMAGE_SIDE};
use super::reply::{self, SentImages};
use crate::AppState;
use crate::body::{self, BodyError, BodyMemory, ReadBody, Sender};
use crate::dialects::{ignored_header, json};
use crate::idempotency::{self, RequestDigest};
use crate::jobs::id_header;
use crate::origin::origin_of;

const LIMITS: InputLimits = InputLimits {
    max_side: MAX_IMAGE_SIDE,
    max_pixels: u64::MAX,
    max_bytes: INIT_IMAGES.kind.max_bytes as u64,
};

pub(super) async fn img2img(
    State(app): State<AppState>,
    Caller(owner): Caller,
    request: Request,
) -> Result<Response, A1111Error> {
    answer(&app, owner, (Call::Img2Img, request)).await
}

pub(super) async fn txt2img(
    State(app): State<AppState>,
    Caller(owner): Caller,
    request: Request,
) -> Result<Response, A1111Error> {
    answer(&app, owner, (Call::Txt2Img, request)).await
}

async fn answer(
    app: &AppState,
    owner: ApiKeyId,
    (call, request): (Call, Request),
) -> Result<Response, A1111Error> {
    let (parts, body) = request.into_parts();
    let before = app.a1111_interrupts.so_far();
    let key = idempotency::key(&parts.headers)?;
    // Who asks is in a header, so nothing of the body has been read for anybody who may not.
    let memory = BodyMemory::new(&app.bodies, Sender::Identified)?;
    let body = body::read(&parts.headers, body, &app.config, memory, |_, _| {
        Ok::<(), BodyError>(())
    });
    let body = body.await?;
    let (reading, caller) = (app.clone(), owner.clone());
    let read = body::off_thread(move || read_call(&reading, &caller, call, (body, key)));
    let (mut parsed, memory, idempotency) = read.await?;
    let is_named = idempotency.is_some();
    let origin = origin_of(&parts, app.service.traces());
    let sent = parsed.include_init_images.then(|| sent_images(&parsed));
    let submission = |part: Part, at: usize| Submission {
        mask: MaskReading::default(),
        owner: owner.clone(),
        origin: origin.clone(),
        dialect: DialectTag {
            name: NAME.to_owned(),
            note: Some(call.name().to_owned()),
            number: None,
        },
        recipe: part.recipe,
        enhance_prompt: false,
        inputs: part.inputs,
        delivery: parsed.delivery.clone(),
        limits: LIMITS,
        // What is framed has its size from there.
        fit: Fit::AsSent,
        number: None,
        idempotency: idempotency.clone().map(|named| of_part(named, at)),
        stays: false,
    };
    let all = std::mem::take(&mut parsed.parts);
    let (is_batch, of_batch) = (all.len() > 1, parsed.batch_size as usize);
    let mut begun = Begun {
        service: app.service.clone(),
        jobs: Vec::new(),
        is_named,
    };
    for (at, part) in all.into_iter().enumerate() {
        Begun::check(app, (before, &owner))?;
        let id = app.service.submit(submission(part, at)).await;
        let id = id.map_err(|error| {
            if is_batch {
                of_picture(at % of_batch, error)
            } else {
                error.into()
            }
        })?;
        begun.jobs.push(id);
    }
    Begun::check(app, (before, &owner))?;
    // The service has its own copies of the images by now, and the reply may want to repeat them.
    let held = sent.is_some().then_some(memory);
    if let Some(options) = parsed.remember.take() {
        app.a1111_options.set(&owner, options);
    }
    let ids = begun.end();
    let headers = ids.first().map(|id| id_header(*id)).unwrap_or_default();
    let made = finished(app, &ids, (parsed, sent, of_batch), is_named).await;
    drop(held);
    Ok((headers, made).into_response())
}

/// Waits for all jobs of a call, and answers with their images. Those that were skipped are left out, where others were made;
/// one that failed ends the others.
async fn finished(
    app: &AppState,
    ids: &[JobId],
    (parsed, sent, of_batch): (ParsedCall, Option<SentImages>, usize),
    is_named: bool,
) -> Result<(HeaderMap, Response), A1111Error> {
    let wait = async |at: usize, id: JobId| -> (usize, Result<Job, ServiceError>) {
        // Who has given the request a name will ask for its jobs again.
        let job = if is_named {
            app.service.wait(id).await
        } else {
            app.service.wait_or_cancel(id).await
        };
        (at, job)
    };
    let mut waits: FuturesUnordered<_> = ids.iter().enumerate().map(|(at, id)| wait(at, *id)).collect();
    let mut ended = Vec::new();
    while let Some((at, job)) = waits.next().await {
        let made = job.and_then(|job| finished_images(&job).map(|_| ()).map(|()| job));
        match made {
            Ok(job) => ended.push((at, job)),
            Err(ServiceError::JobCancelled) if ids.len() > 1 => {}
            // What still waits is dropped, and so cancelled.
            Err(error) if ids.len() > 1 => return Err(of_picture(at % of_batch, error)),
            Err(error) => return Err(error.into()),
        }
    }
    if ended.is_empty() {
        return Err(ServiceError::JobCancelled.into());
    }
    ended.sort_by_key(|(at, _)| *at);
    let jobs: Vec<Job> = ended.into_iter().map(|(_, job)| job).collect();
    let ignored = ignored_header(&parsed.ignored);
    Ok((ignored, reply::of(app, &jobs, (parsed, sent)).await?))
}

/// The call, the memory that its images take, and the caller's own name for it.
fn read_call(
    app: &AppState,
    owner: &ApiKeyId,
    call: Call,
    (body, key): (ReadBody, Option<String>),
) -> Result<(ParsedCall, BodyMemory, Option<Idempotency>), A1111Error> {
    let idempotency = key.map(|key| {
        let mut digest = RequestDigest::new(call.name());
        digest.add(body.bytes());
        digest.named(key)
    });
    let copies = json::copies(body.bytes());
    let (bytes, mut memory) = body.with_room(copies)?;
    let fields = call.parse(&bytes)?;
    // Before the images are decoded, which need a place of their own.
    drop(bytes);
    let defaults = Defaults {
        catalog: app.service.catalog(),
        options: app.a1111_options.of(owner),
        seed: random_seed(),
    };
    let parsed = to_call(fields, call, defaults)?;
    memory.shrink_to(inline_bytes(&parsed));
    Ok((parsed, memory, idempotency))
}

/// The bytes of the files in a call. A mask, and an image that is painted several times, is one file.
fn inline_bytes(parsed: &ParsedCall) -> usize {
    let files = sent_images(parsed);
    files.init.iter().chain(&files.mask).map(Bytes::len).sum()
}

fn sent_images(parsed: &ParsedCall) -> SentImages {
    let file = |source: &ImageSource| match source {
        ImageSource::Inline(bytes) => Some(bytes.clone()),
        ImageSource::Url(_) => None,
    };
    let inputs = |part: &Part| -> Inputs<ImageSource> { part.inputs.clone() };
    let of_batch = parsed.batch_size as usize;
    let many = parsed.parts.len() > 1;
    let first = if many { of_batch } else { 1 };
    let init = parsed.parts.iter().take(first).map(inputs);
    SentImages {
        init: init.filter_map(|inputs| inputs.init().and_then(file)).collect(),
        mask: parsed
            .parts
            .first()
            .and_then(|part| part.inputs.mask().and_then(file)),
    }
}

/// A call of several jobs has one name; a header holds no line break, so that no name is another's part.
fn of_part(named: Idempotency, at: usize) -> Idempotency {
    if at == 0 {
        return named;
    }
    Idempotency {
        key: format!("{}\n{at}", named.key),
        digest: named.digest,
    }
}

fn of_picture(index: usize, error: ServiceError) -> A1111Error {
    let error = Box::new(error);
    A1111Error::OfPicture { index, error }
}

/// The jobs of a call that is still being submitted: if it fails, or its caller hangs up, they are not made.
struct Begun {
    service: Service,
    jobs: Vec<JobId>,
    is_named: bool,
}

impl Begun {
    /// Ends the call where its caller has interrupted since it began.
    fn check(app: &AppState, (before, owner): (u64, &ApiKeyId)) -> Result<(), ServiceError> {
        if app.a1111_interrupts.since(before, owner) {
            return Err(ServiceError::JobCancelled);
        }
        Ok(())
    }

    /// All are there; from here on they are waited for.
    fn end(mut self) -> Vec<JobId> {
        std::mem::take(&mut self.jobs)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_named || self.jobs.is_empty() {
            return;
        }
        let (service, jobs) = (self.service.clone(), std::mem::take(&mut self.jobs));
        tokio::spawn(async move {
            for id in jobs {
                // It may have ended in the meantime, which is as good.
                let _ = service.cancel(id).await;
            }
        });
    }
}

/// 32 random bits, as there.
fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff_ffff
}
