//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pentimento_engine::{ResolvedModels, keeps_everything};
use pentimento_jobs::{Inserted, JobPlace, JobsError, QueueEntry, known_request};
use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, Idempotency, ImageKey, ImageSource, InputRole, Inputs, Job, JobId,
    JobNote, JobOrigin, Recipe, Reservation, RgbImage, Size, Start, describe_chain,
};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::admitted::{Admitted, DecodedImages};
use crate::device_time::DeviceTime;
use crate::framing::is_framed;
use crate::image_codec::MaskReading;
use crate::inner::{Inner, Lifecycle};
use crate::inputs::missing;
use crate::off_thread::off_thread;
use crate::safety;
use crate::{InputLimits, Service, ServiceError, image_codec};

/// So many numbers in a row are never all taken, unless nearly all are.
const NUMBERS_TRIED: usize = 20;

/// A request on its way to becoming a job.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who asks.
    pub owner: ApiKeyId,
    /// Through which dialect, with what it wants to find again.
    pub dialect: DialectTag,
    /// Which call it is.
    pub origin: JobOrigin,
    /// What decides the pixels.
    pub recipe: Recipe,
    /// Whether words are added to its prompts, as the service's enhancer finds them and as far as they fit.
    pub enhance_prompt: bool,
    /// What to start from and the images beside it, as the caller sent them. Noise is text to image: no image is needed, the
    /// size is checked as one of a picture is, and the recipe's strength counts as 1.
    pub inputs: Inputs<ImageSource>,
    /// How a mask among them is read. It is stored with white for what is repainted, whatever it was.
    pub mask: MaskReading,
    /// How the results are handed over.
    pub delivery: Delivery,
    /// How much of an image the dialect takes, and how large one may be that is made from noise.
    pub limits: InputLimits,
    /// The size that the image to start from is brought to; None leaves it as it is.
    pub fit: Option<Size>,
    /// Draws the number by which the dialect's callers name the job, where they do; again where another job has it.
    pub number: Option<fn() -> u64>,
    /// The caller's own name for the request: the same request under it is the same job.
    pub idempotency: Option<Idempotency>,
    /// Whether only this machine runs it, where several share jobs. One that runs none lets others do it all the same.
    pub stays: bool,
}

impl Service {
    /// Checks everything that can be checked now, stores the job, and gives its id out.
    ///
    /// A place for the job comes first, so that a refusal for want of one costs nothing and comes at once. Then
    /// every named model is resolved, images at addresses are fetched, and all images are decoded within the limits
    /// before anything is stored. When the future is dropped before it returns, no job is left behind, except one that is
    /// stored already and that has a name of the caller's or a webhook: that one goes on.
    ///
    /// A request that its owner has sent before, under the same key, is the job that it made then.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `Mask`, `Prompt…`, `SizeRefused`, `RunRefused`, `Overloaded`, `ShareTaken`, `JobsAtOnce`, `KeyReused`,
    /// `WebhookRefused` and `ShuttingDown` variants.
    pub async fn submit(&self, submission: Submission) -> Result<JobId, ServiceError> {
        let inner = &self.inner;
        if let Some(known) = inner.known(&submission).await? {
            return Ok(known);
        }
        let (submission, planned) = inner.check(submission).await?;
        let checked = inner.check_images(&submission).await?;
        inner.accept(submission, planned, checked).await
    }
}

impl Submission {
    /// Whether an image has to be fetched.
    pub(crate) fn has_addresses(&self) -> bool {
        let mut sources = self.inputs.iter();
        sources.any(|(_, source)| matches!(source, ImageSource::Url(_)))
    }

    /// Of each image to be made, while the one to start from may not be known.
    pub(crate) fn expected_size(&self) -> Size {
        const USUAL: Size = Size {
            width: 512,
            height: 512,
        };
        match self.inputs.start() {
            Start::Noise(size) => *size,
            Start::Image { .. } => {
                let framed = self.recipe.framing.map(|framing| framing.size);
                self.fit.or(framed).unwrap_or(USUAL)
            }
        }
    }

    /// The record, queued.
    pub(crate) fn into_job(
        self,
        id: JobId,
        now: SystemTime,
        (inputs, notes): (Inputs<ImageKey>, Vec<JobNote>),
    ) -> Job {
        let number = self.number.map_or(self.dialect.number, |draw| Some(draw()));
        Job {
            owner: self.owner,
            dialect: DialectTag {
                number,
                ..self.dialect
            },
            origin: self.origin,
            delivery: self.delivery,
            idempotency: self.idempotency,
            stays: self.stays,
            notes,
            ..Job::queued(id, now, self.recipe, inputs)
        }
    }
}

/// What is known of a request that was not refused, before its images are there.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) models: ResolvedModels,
    pub(crate) time: DeviceTime,
    /// What the caller should be told.
    pub(crate) notes: Vec<JobNote>,
    pub(crate) place: JobPlace,
}

/// What an input file is read as.
#[derive(Clone, Copy)]
struct Wanted {
    role: InputRole,
    limits: InputLimits,
    /// The size that it is brought to.
    fit: Option<Size>,
    /// How it is read, where it is a mask.
    mask: MaskReading,
    /// What its grey means there: [`Recipe::differential_diffusion`].
    is_change_map: bool,
}

/// An input file that has been decoded.
#[derive(Debug)]
pub(crate) struct Checked {
    /// As it is stored.
    file: Bytes,
    /// As it was sent, where that is another file with a manifest that is kept.
    sent: Option<Bytes>,
    size: Size,
    /// The pixels with the room that they take; None where there was none, so that they will be decoded again.
    image: Option<(RgbImage, Reservation)>,
    note: Option<JobNote>,
    /// Whether it is a mask that leaves everything as it is.
    pub(crate) keeps_everything: bool,
}

/// Whether there is nothing to compute, since the mask is known by now.
pub(crate) fn keep_everything(checked: &[(InputRole, Checked)]) -> bool {
    checked.iter().any(|(_, checked)| checked.keeps_everything)
}

/// Of each image to be made.
pub(crate) fn size_of<I>(inputs: &Inputs<I>, checked: &[(InputRole, Checked)]) -> Result<Size, ServiceError> {
    if let Start::Noise(size) = inputs.start() {
        return Ok(*size);
    }
    let init = checked.iter().find(|(role, _)| *role == InputRole::Init);
    init.map(|(_, checked)| checked.size)
        .ok_or_else(|| missing(InputRole::Init))
}

/// Refuses the size of what is to be computed from noise, or from a picture that is framed. A UNet takes latents of whole pixels only, and nothing is cropped
/// from what was never given.
fn check_size(size: Size, limits: InputLimits) -> Result<(), ServiceError> {
    /// Image pixels per latent pixel and side, in every VAE of Stable Diffusion.
    const STEP: u32 = 8;
    let sides = [size.width, size.height];
    let fits = |side: u32| side >= STEP && side.is_multiple_of(STEP) && side <= limits.max_side;
    if sides.into_iter().all(fits) && size.pixels() <= limits.max_pixels {
        return Ok(());
    }
    Err(ServiceError::SizeRefused {
        size,
        max_side: limits.max_side,
        max_pixels: limits.max_pixels,
    })
}

impl Checked {
    /// A file, and what is computed with in its place.
    pub(crate) fn new(file: Bytes, image: RgbImage, room: Option<Reservation>) -> Self {
        Self {
            file,
            sent: None,
            size: image.size(),
            image: room.map(|room| (image, room)),
            note: None,
            keeps_everything: false,
        }
    }
}

/// Says which image an error is about.
fn in_role(role: InputRole, error: ServiceError) -> ServiceError {
    match role {
        InputRole::Init => error,
        InputRole::Mask | InputRole::IpAdapter => ServiceError::OfInput {
            role,
            fault: Box::new(error),
        },
    }
}

impl Inner {
    /// The job of a request that was sent before: found before a place is asked for, so that who sends it again because
    /// there was no answer gets one from a server without room, or one that takes nothing new.
    pub(crate) async fn known(&self, submission: &Submission) -> Result<Option<JobId>, ServiceError> {
        let Some(request) = &submission.idempotency else {
            return Ok(None);
        };
        let found = self.store.find_by_key(&submission.owner, &request.key).await;
        let found = found.map_err(ServiceError::store("read the job"))?;
        let known = found.map(|job| known_request(&job, request));
        known.transpose().map_err(not_stored)
    }

    /// Everything that can be refused before an image is looked at.
    pub(crate) async fn check(
        &self,
        mut submission: Submission,
    ) -> Result<(Submission, Planned), ServiceError> {
        self.check_open()?;
        if let Some(webhook) = &mut submission.delivery.webhook {
            *webhook = self.check_webhook(webhook)?;
        }
        let limits = self.limits_for(&submission);
        let computed = match submission.inputs.start() {
            Start::Noise(size) => Some(*size),
            // Whatever the files are, this much is made of them.
            Start::Image { .. } => submission.recipe.framing.map(|framing| framing.size),
        };
        if let Some(size) = computed {
            check_size(size, limits)?;
        }
        let task = submission.inputs.task();
        submission.recipe.strength = submission.recipe.strength_for(task);
        let place = self.reserve(&submission.owner)?;
        let (models, mut notes) = self.resolve_models(&submission.recipe).await?;
        self.check_served(&submission.recipe, &models)?;
        // The caller's own words: what is added to them is never a reason to refuse.
        self.check_prompts(&submission.recipe, &models).await?;
        if submission.enhance_prompt {
            self.enhance(&mut submission.recipe, &models).await?;
        }
        let (time, of_plan) = self.plan(&models, &mut submission.recipe, task).await?;
        notes.extend(of_plan);
        let asked = submission.delivery.safety;
        submission.delivery.safety = self.config.safety.policy(asked);
        notes.extend(safety::note(asked, submission.delivery.safety));
        self.checker_files(submission.delivery.safety).await?;
        let planned = Planned {
            models,
            time,
            notes,
            place,
        };
        Ok((submission, planned))
    }

    /// Fetches and decodes all images at the same time. The first that is wrong ends the others.
    pub(crate) fn check_images(
        self: &Arc<Self>,
        submission: &Submission,
    ) -> impl Future<Output = Result<Vec<(InputRole, Checked)>, ServiceError>> + Send + 'static {
        let inner = Arc::clone(self);
        let recipe = submission.recipe.clone();
        let limits = self.limits_for(submission);
        let (fit, mask) = (submission.fit, submission.mask);
        let inputs = submission.inputs.clone();
        let owner = submission.owner.clone();
        async move {
            let mut checked = Vec::new();
            if let (Some(framing), Start::Image { init, mask }) = (recipe.framing, inputs.start()) {
                let pictures = (init, mask.as_ref());
                checked = inner.check_framed(&owner, pictures, (framing, limits)).await?;
            }
            let mut checks = JoinSet::new();
            for (role, source) in inputs.iter() {
                if recipe.framing.is_some() && is_framed(role) {
                    continue;
                }
                let source = source.clone();
                let inner = Arc::clone(&inner);
                let wanted = Wanted {
                    role,
                    limits,
                    fit: fit.filter(|_| role == InputRole::Init),
                    mask,
                    is_change_map: recipe.differential_diffusion,
                };
                let owner = owner.clone();
                let check = async move { (role, inner.check_image(&owner, &source, wanted).await) };
                checks.spawn(check.in_current_span());
            }
            while let Some(done) = checks.join_next().await {
                let (role, image) = done.map_err(ServiceError::internal)?;
                checked.push((role, image.map_err(|error| in_role(role, error))?));
            }
            let result = size_of(&inputs, &checked)?.rgb_bytes();
            let brought = checked.iter().map(|(_, checked)| checked.size.rgb_bytes());
            inner.admitted.check(recipe.image_bytes(result, brought))?;
            Ok(checked)
        }
    }

    /// The dialect's limits, within the server's.
    fn limits_for(&self, submission: &Submission) -> InputLimits {
        InputLimits {
            max_pixels: submission.limits.max_pixels.min(self.config.max_image_pixels),
            ..submission.limits
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), ServiceError> {
        if self.lifecycle() != Lifecycle::Open {
            return Err(ServiceError::ShuttingDown);
        }
        match self.outage() {
            Some(reason) => Err(ServiceError::OutOfService { reason }),
            None => Ok(()),
        }
    }

    /// Held while a job is being stored, so that a shutdown sees every job that was accepted.
    pub(crate) async fn admission_while_open(&self) -> Result<OwnedRwLockReadGuard<()>, ServiceError> {
        // Behind a shutdown that waits for others nobody stands in line.
        self.check_open()?;
        let admission = Arc::clone(&self.admission).read_owned().await;
        self.check_open()?;
        Ok(admission)
    }

    /// A prompt's keys and values grow with its tokens, in every layer that attends to it.
    async fn check_prompts(&self, recipe: &Recipe, models: &ResolvedModels) -> Result<(), ServiceError> {
        let embeddings = models.embeddings.clone();
        let (counter, limit) = (self.tokens.clone(), self.config.max_prompt_tokens);
        let prompts = [
            ("prompt", recipe.prompt.clone()),
            ("negative_prompt", recipe.negative_text().to_owned()),
        ];
        off_thread(move || {
            for (field, text) in prompts {
                counter
                    .check(field, &text, &embeddings, limit)
                    .map_err(ServiceError::of_prompt)?;
            }
            Ok(())
        })
        .await
    }

    /// The image of a source, decoded once and brought to the size that is wanted.
    async fn check_image(
        self: &Arc<Self>,
        owner: &ApiKeyId,
        source: &ImageSource,
        wanted: Wanted,
    ) -> Result<Checked, ServiceError> {
        let bytes = match source {
            ImageSource::Inline(bytes) => bytes.clone(),
            ImageSource::Url(url) => self.file_at(url, wanted.limits.max_bytes).await?,
        };
        let decoding = image_codec::look_at(&bytes, wanted.limits)?;
        self.admitted
            .check(decoding.image_bytes().max(wanted.fit.map_or(0, Size::rgb_bytes)))?;
        self.check_decoding(decoding)?;
        let room = self.room_for(owner, decoding).await?;
        let inner = Arc::clone(self);
        off_thread(move || {
            let (file, image, note) = decoded_file(bytes.clone(), wanted)?;
            // By the address of its bytes: a file that is stored as it came is the same one.
            let is_other = wanted.role == InputRole::Init && file.as_ptr() != bytes.as_ptr();
            let signer = inner.signer.as_ref().filter(|_| is_other);
            let sent = signer.and_then(|signer| signer.keeps(&bytes).then_some(bytes));
            let image_size = image.size();
            let keeps_everything =
                wanted.role == InputRole::Mask && keeps_everything(&image, wanted.is_change_map);
            let room = room.keep(&inner.admitted, image.size_bytes());
            let image = room.map(|room| (image, room));
            Ok(Checked {
                file,
                sent,
                size: image_size,
                image,
                note,
                keeps_everything,
            })
        })
        .await
    }

    /// Stores inputs and job, then queues the job.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        mut submission: Submission,
        planned: Planned,
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<JobId, ServiceError> {
        let admission = self.admission_while_open().await?;
        let id = JobId::new();
        let unfinished = Unfinished::new(self, id);
        let size = size_of(&submission.inputs, &checked)?;
        submission.recipe.keeps_everything = keep_everything(&checked);
        let Planned {
            models,
            time,
            notes,
            place,
        } = planned;
        let expected = time.expected(&models, &submission.recipe, size);
        let keys = submission.inputs.map(|role, _| ImageKey::input(id, role));
        let stored = self.store_inputs((id, &keys), checked).await?;
        let draw = submission.number;
        let mut job = submission.into_job(id, self.clock.wall(), (keys, notes));
        job.deadline = self.deadline_of_new(&job);
        job.notes.extend(stored.notes);
        job.work = time.work(&job.recipe, size);
        job.stays &= self.config.runs_jobs;
        let (entry, goes_on) = (QueueEntry::of(&job), goes_on_alone(&job));
        let inner = Arc::clone(self);
        let accepted = self.to_its_end(async move {
            let _admission = admission;
            if let Inserted::Known(first) = inner.insert(job, place, draw).await? {
                // A twin was faster. What was stored of this one goes with `unfinished`.
                return Ok((first, None));
            }
            inner.progress.expect(id, entry.owner.clone(), expected);
            inner.admitted.keep(
                id,
                Admitted {
                    models,
                    images: stored.decoded,
                },
            );
            inner.push(entry).await;
            Ok((id, unfinished.unless(goes_on)))
        });
        accepted.await
    }

    /// Runs what stores a job in a task that a caller who hangs up does not stop half-way: what is written then could not be told
    /// from what is not. What is still unfinished when it is done and nobody is there to get the id is taken back.
    pub(crate) async fn to_its_end(
        &self,
        storing: impl Future<Output = Result<(JobId, Option<Unfinished>), ServiceError>> + Send + 'static,
    ) -> Result<JobId, ServiceError> {
        let stored = self.runtime.spawn(storing.in_current_span()).await;
        let (id, unfinished) = stored.map_err(ServiceError::internal)??;
        if let Some(unfinished) = unfinished {
            unfinished.done();
        }
        Ok(id)
    }

    pub(crate) async fn store_inputs(
        &self,
        (id, keys): (JobId, &Inputs<ImageKey>),
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<StoredInputs, ServiceError> {
        let mut files: BTreeMap<InputRole, Checked> = checked.into_iter().collect();
        let mut stored = StoredInputs {
            decoded: Some(DecodedImages::default()),
            notes: Vec::new(),
        };
        for (role, key) in keys.iter() {
            let checked = files.remove(&role).ok_or_else(|| missing(role))?;
            let Checked {
                file,
                sent,
                image,
                note,
                keeps_everything,
                ..
            } = checked;
            stored.notes.extend(note);
            stored
                .notes
                .extend(keeps_everything.then_some(JobNote::MaskKeepsEverything));
            if let Some(sent) = sent {
                let put = self.images.put(&ImageKey::sent(id), sent).await;
                put.map_err(ServiceError::store("store the input picture"))?;
            }
            let put = self.images.put(key, file).await;
            put.map_err(ServiceError::store("store the input picture"))?;
            let decoded = stored.decoded.zip(image);
            stored.decoded = decoded.map(|(mut decoded, (image, room))| {
                decoded.add(role, image, room);
                decoded
            });
        }
        Ok(stored)
    }

    /// A place for a job of this owner.
    fn reserve(&self, owner: &ApiKeyId) -> Result<JobPlace, ServiceError> {
        let most = self.keys.jobs_at_once(owner).unwrap_or(usize::MAX);
        self.store.reserve_within(owner, most).map_err(not_stored)
    }

    /// Stores the job, under another number where another job has its.
    pub(crate) async fn insert(
        &self,
        mut job: Job,
        mut place: JobPlace,
        draw: Option<fn() -> u64>,
    ) -> Result<Inserted, ServiceError> {
        for _ in 0..NUMBERS_TRIED {
            let inserted = self.store.insert(job.clone(), place).await;
            let (Err(JobsError::NumberTaken), Some(draw)) = (&inserted, draw) else {
                return inserted.map_err(not_stored);
            };
            job.dialect.number = Some(draw());
            place = self.reserve(&job.owner)?;
        }
        Err(not_stored(JobsError::NumberTaken))
    }

    /// The job is safe. If it cannot be queued, the sweeper will do it.
    pub(crate) async fn push(&self, entry: QueueEntry) {
        let id = entry.id;
        if let Err(error) = self.queue.push(entry).await {
            tracing::warn!(job = %id, error = describe_chain(&error), "a stored job could not be queued yet");
        }
    }
}

/// What has become of the images of a request.
pub(crate) struct StoredInputs {
    /// None where there was no room for one of them.
    pub(crate) decoded: Option<DecodedImages>,
    pub(crate) notes: Vec<JobNote>,
}

fn not_stored(error: JobsError) -> ServiceError {
    match error {
        JobsError::Full { .. } => ServiceError::Overloaded,
        JobsError::ShareFull { held } => ServiceError::ShareTaken { held },
        JobsError::KeyReused { .. } => ServiceError::KeyReused,
        JobsError::KeyInDoubt => ServiceError::KeyInDoubt,
        JobsError::OwnerFull { limit } => ServiceError::JobsAtOnce { limit },
        error @ (JobsError::NotFound { .. }
        | JobsError::Duplicate { .. }
        | JobsError::Refused(_)
        | JobsError::ClaimLost { .. }
        | JobsError::NewerSchema { .. }
        | JobsError::NumberTaken
        | JobsError::TooLarge { .. }
        | JobsError::WebhookNotFound { .. }
        | JobsError::SendingLost { .. }
        | JobsError::Backend { .. }) => ServiceError::store("store the job")(error),
    }
}

/// Decodes a file. One that is not what the image is taken from is replaced by a file of the image: of another size, or a
/// mask in an alpha channel.
fn decoded_file(file: Bytes, wanted: Wanted) -> Result<(Bytes, RgbImage, Option<JobNote>), ServiceError> {
    let (image, note) = match (wanted.role, wanted.mask) {
        (InputRole::Init | InputRole::IpAdapter, _) => (image_codec::decode(&file, wanted.limits)?, None),
        (InputRole::Mask, MaskReading::Transparent) => {
            let image = image_codec::decode_transparent_mask(&file, wanted.limits)?;
            return Ok((image_codec::to_file(&image)?, image, None));
        }
        (InputRole::Mask, MaskReading::White) => {
            let mask = image_codec::decode_mask(&file, wanted.limits)?;
            (mask.image, mask.is_alpha.then_some(JobNote::MaskIsAlpha))
        }
    };
    match wanted.fit {
        Some(size) if size != image.size() => {
            let image = image_codec::resized(&image, size);
            Ok((image_codec::to_file(&image)?, image, note))
        }
        _ if note.is_some() => Ok((image_codec::to_file(&image)?, image, note)),
        _ => Ok((file, image, note)),
    }
}

/// Whether a stored job is made though its caller left before the id came: who named the request asks again for the same job,
/// and who gave an address is told of its end there. Cancelling it would use up the name, and tell of an end nobody asked for.
pub(crate) const fn goes_on_alone(job: &Job) -> bool {
    job.idempotency.is_some() || job.delivery.webhook.is_some()
}

/// Takes back what a submit has stored when it fails or its caller goes away before it has the id.
pub(crate) struct Unfinished {
    inner: Option<Arc<Inner>>,
    id: JobId,
}

impl Unfinished {
    pub(crate) fn new(inner: &Arc<Inner>, id: JobId) -> Self {
        Self {
            inner: Some(Arc::clone(inner)),
            id,
        }
    }

    pub(crate) fn done(mut self) {
        self.inner = None;
    }

    /// None where the job goes on whether its id gets to anybody or not.
    pub(crate) fn unless(self, goes_on: bool) -> Option<Self> {
        if goes_on {
            self.done();
            return None;
        }
        Some(self)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let id = self.id;
        let runtime = inner.runtime.clone();
        runtime.spawn(async move {
            // The job may or may not have been stored; its input is ours in both cases.
            let _ = inner.cancel(id).await;
            inner.delete_input(id).await;
        });
    }
}
