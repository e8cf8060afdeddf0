//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pentimento_engine::ResolvedModels;
use pentimento_jobs::{JobPlace, JobsError, QueueEntry};
use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, ImageKey, ImageSource, InputRole, Inputs, Job, JobId, JobNote, Recipe,
    Reservation, RgbImage, Size, describe_chain,
};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::admitted::{Admitted, DecodedImages};
use crate::inner::{Inner, Lifecycle};
use crate::inputs::no_init;
use crate::off_thread::off_thread;
use crate::plan::DeviceTime;
use crate::safety;
use crate::{InputLimits, Service, ServiceError, image_codec};

/// A request on its way to becoming a job.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Who asks.
    pub owner: ApiKeyId,
    /// Through which dialect, with what it wants to find again.
    pub dialect: DialectTag,
    /// What decides the pixels.
    pub recipe: Recipe,
    /// The images to work on, as the caller sent them.
    pub inputs: Inputs<ImageSource>,
    /// How the results are handed over.
    pub delivery: Delivery,
    /// How much of an image the dialect takes.
    pub limits: InputLimits,
    /// The size that the image to start from is brought to; None leaves it as it is.
    pub fit: Option<Size>,
}

impl Service {
    /// Checks everything that can be checked now, stores the job, and gives its id out.
    ///
    /// A place for the job comes first, so that a refusal for want of one costs nothing and comes at once. Then
    /// every named model is resolved, images at addresses are fetched, and all images are decoded within the limits
    /// before anything is stored. When the future is dropped before it returns, no job is left behind.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `Mask`, `Prompt…`, `RunRefused`, `Overloaded`, `ShareTaken` and
    /// `ShuttingDown` variants.
    pub async fn submit(&self, submission: Submission) -> Result<JobId, ServiceError> {
        let inner = &self.inner;
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

    /// Of each image to be made, while the one to start from is not known.
    pub(crate) fn expected_size(&self) -> Size {
        const USUAL: Size = Size {
            width: 512,
            height: 512,
        };
        self.fit.unwrap_or(USUAL)
    }

    /// The record, queued.
    pub(crate) fn into_job(
        self,
        id: JobId,
        now: SystemTime,
        (inputs, notes): (Inputs<ImageKey>, Vec<JobNote>),
    ) -> Job {
        Job {
            owner: self.owner,
            dialect: self.dialect,
            delivery: self.delivery,
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
}

/// An input file that has been decoded.
#[derive(Debug)]
pub(crate) struct Checked {
    /// As it is stored.
    file: Bytes,
    size: Size,
    /// The pixels with the room that they take; None where there was none, so that they will be decoded again.
    image: Option<(RgbImage, Reservation)>,
    note: Option<JobNote>,
}

/// Of each image to be made.
pub(crate) fn size_of(checked: &[(InputRole, Checked)]) -> Result<Size, ServiceError> {
    let init = checked.iter().find(|(role, _)| *role == InputRole::Init);
    init.map(|(_, checked)| checked.size).ok_or_else(no_init)
}

/// Says which image an error is about.
fn in_role(role: InputRole, error: ServiceError) -> ServiceError {
    match role {
        InputRole::Init => error,
        InputRole::Mask => ServiceError::Mask(Box::new(error)),
    }
}

impl Inner {
    /// Everything that can be refused before an image is looked at.
    pub(crate) async fn check(
        &self,
        mut submission: Submission,
    ) -> Result<(Submission, Planned), ServiceError> {
        self.check_open()?;
        let place = self.store.reserve(&submission.owner).map_err(not_stored)?;
        let (models, mut notes) = self.resolve_models(&submission.recipe).await?;
        self.check_prompts(&submission.recipe, &models).await?;
        let (time, of_plan) = self.plan(&models, &mut submission.recipe).await?;
        notes.extend(of_plan);
        let asked = submission.delivery.safety;
        submission.delivery.safety = self.config.safety.policy(asked);
        notes.extend(safety::note(asked, submission.delivery.safety));
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
        let limits = InputLimits {
            max_pixels: submission.limits.max_pixels.min(self.config.max_image_pixels),
            ..submission.limits
        };
        let fit = submission.fit;
        let sources = submission.inputs.clone().into_vec();
        let owner = submission.owner.clone();
        async move {
            let mut checks = JoinSet::new();
            for (role, source) in sources {
                let inner = Arc::clone(&inner);
                let wanted = Wanted {
                    role,
                    limits,
                    fit: fit.filter(|_| role == InputRole::Init),
                };
                let owner = owner.clone();
                let check = async move { (role, inner.check_image(&owner, &source, wanted).await) };
                checks.spawn(check.in_current_span());
            }
            let mut checked = Vec::new();
            while let Some(done) = checks.join_next().await {
                let (role, image) = done.map_err(ServiceError::internal)?;
                checked.push((role, image.map_err(|error| in_role(role, error))?));
            }
            let brought = checked
                .iter()
                .map(|(role, checked)| (*role, checked.size.rgb_bytes()));
            inner.admitted.check(recipe.image_bytes(brought))?;
            Ok(checked)
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), ServiceError> {
        if self.lifecycle() == Lifecycle::Open {
            Ok(())
        } else {
            Err(ServiceError::ShuttingDown)
        }
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
            ImageSource::Url(url) => self.fetcher.fetch(url).await.map_err(ServiceError::not_fetched)?,
        };
        let decoding = image_codec::look_at(&bytes, wanted.limits)?;
        self.admitted
            .check(decoding.image_bytes().max(wanted.fit.map_or(0, Size::rgb_bytes)))?;
        self.check_decoding(decoding)?;
        let room = self.room_for(owner, decoding).await?;
        let inner = Arc::clone(self);
        off_thread(move || {
            let (file, image, note) = decoded_file(bytes, wanted)?;
            let image_size = image.size();
            let room = room.keep(&inner.admitted, image.size_bytes());
            let image = room.map(|room| (image, room));
            Ok(Checked {
                file,
                size: image_size,
                image,
                note,
            })
        })
        .await
    }

    /// Stores inputs and job, then queues the job.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        submission: Submission,
        planned: Planned,
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<JobId, ServiceError> {
        let _admission = self.admission.read().await;
        self.check_open()?;
        let id = JobId::new();
        let unfinished = Unfinished::new(self, id);
        let size = size_of(&checked)?;
        let Planned {
            models,
            time,
            notes,
            place,
        } = planned;
        let expected = time.expected(&models, &submission.recipe, size);
        let stored = self.store_inputs(id, checked).await?;
        let mut job = submission.into_job(id, self.clock.wall(), (stored.keys, notes));
        job.notes.extend(stored.notes);
        job.work = time.work(&job.recipe, size);
        let entry = QueueEntry::of(&job);
        self.insert(job, place).await?;
        self.progress.expect(id, entry.owner.clone(), expected);
        self.admitted.keep(
            id,
            Admitted {
                models,
                images: stored.decoded,
            },
        );
        self.push(entry).await;
        unfinished.done();
        Ok(id)
    }

    pub(crate) async fn store_inputs(
        &self,
        id: JobId,
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<StoredInputs, ServiceError> {
        let mut stored = StoredInputs {
            keys: Inputs::new(ImageKey::input(id, InputRole::Init)),
            decoded: Some(DecodedImages::default()),
            notes: Vec::new(),
        };
        for (role, checked) in checked {
            let Checked {
                file, image, note, ..
            } = checked;
            stored.notes.extend(note);
            let key = ImageKey::input(id, role);
            let put = self.images.put(&key, file).await;
            put.map_err(ServiceError::store("store the input picture"))?;
            stored.keys = stored.keys.with(role, key);
            let decoded = stored.decoded.zip(image);
            stored.decoded = decoded.map(|(mut decoded, (image, room))| {
                decoded.add(role, image, room);
                decoded
            });
        }
        Ok(stored)
    }

    pub(crate) async fn insert(&self, job: Job, place: JobPlace) -> Result<(), ServiceError> {
        self.store.insert(job, place).await.map_err(not_stored)
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
    pub(crate) keys: Inputs<ImageKey>,
    /// None where there was no room for one of them.
    pub(crate) decoded: Option<DecodedImages>,
    pub(crate) notes: Vec<JobNote>,
}

fn not_stored(error: JobsError) -> ServiceError {
    match error {
        JobsError::Full { .. } => ServiceError::Overloaded,
        JobsError::ShareFull { held } => ServiceError::ShareTaken { held },
        error @ (JobsError::NotFound { .. }
        | JobsError::Duplicate { .. }
        | JobsError::Refused(_)
        | JobsError::ClaimLost { .. }
        | JobsError::Backend { .. }) => ServiceError::store("store the job")(error),
    }
}

/// Decodes a file. One that is not what the image is taken from is replaced by a file of the image: of another size, or a
/// mask in an alpha channel.
fn decoded_file(file: Bytes, wanted: Wanted) -> Result<(Bytes, RgbImage, Option<JobNote>), ServiceError> {
    let (image, note) = match wanted.role {
        InputRole::Init => (image_codec::decode(&file, wanted.limits)?, None),
        InputRole::Mask => {
            let mask = image_codec::decode_mask(&file, wanted.limits)?;
            (mask.image, mask.is_alpha.then_some(JobNote::MaskIsAlpha))
        }
    };
    match wanted.fit {
        Some(size) if size != image.size() => {
            let image = image_codec::resized(&image, size)?;
            Ok((image_codec::to_file(&image)?, image, note))
        }
        _ if note.is_some() => Ok((image_codec::to_file(&image)?, image, note)),
        _ => Ok((file, image, note)),
    }
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
