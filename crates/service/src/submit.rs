//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use pentimento_catalog::{Availability, CatalogError, ModelEntry, ModelKind};
use pentimento_engine::ResolvedModels;
use pentimento_jobs::JobsError;
use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, ImageKey, ImageSource, InputRole, Inputs, Job, JobId, JobNote, ModelId,
    Recipe, Reservation, RgbImage, Size, describe_chain,
};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::admitted::{Admitted, DecodedImages};
use crate::forecast::Work;
use crate::inner::{Inner, Lifecycle};
use crate::off_thread::off_thread;
use crate::plan::prompt_notes;
use crate::{InputLimits, ModelRole, Service, ServiceError, image_codec};

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
    /// Every named model is resolved, images at addresses are fetched, and all images are decoded within the limits
    /// before anything is stored. When the future is dropped before it returns, no job is left behind.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `Mask`, `PromptTooLong`, `RunRefused`, `NotSupportedYet`, `Overloaded` and `ShuttingDown` variants.
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
    pub(crate) fn expected_pixels(&self) -> u64 {
        const USUAL: u64 = 512 * 512;
        self.fit.map_or(USUAL, |size| size.rgb_bytes() / 3)
    }

    /// The record, queued.
    pub(crate) fn into_job(self, id: JobId, now: SystemTime, inputs: Inputs<ImageKey>) -> Job {
        let notes = prompt_notes(&self.recipe);
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
    /// Of each image; None where the checkpoint could not be asked.
    evaluations: Option<u32>,
}

impl Planned {
    /// What the device will have to do. Without a plan, all steps are expected to run.
    pub(crate) fn work(&self, recipe: &Recipe, pixels: u64) -> Work {
        let rows = if recipe.guidance_scale > 1.0 { 2 } else { 1 };
        let evaluations = self.evaluations.unwrap_or(recipe.steps);
        Work::new(
            &self.models.checkpoint.name,
            (pixels, rows),
            (recipe.image_count, evaluations),
        )
    }
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
    /// What the pixels take, in bytes.
    image_bytes: u64,
    /// The pixels with the room that they take; None where there was none, so that they will be decoded again.
    image: Option<(RgbImage, Reservation)>,
    note: Option<JobNote>,
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
        let models = self.resolve_models(&submission.recipe)?;
        let counts = self.store.counts().await;
        let counts = counts.map_err(ServiceError::store("look at the job queue"))?;
        if !counts.has_room() {
            return Err(ServiceError::Overloaded);
        }
        self.check_prompts(&submission.recipe).await?;
        let evaluations = self.plan(&models, &mut submission.recipe).await?;
        Ok((submission, Planned { models, evaluations }))
    }

    /// Fetches and decodes all images at the same time. The first that is wrong ends the others.
    pub(crate) fn check_images(
        self: &Arc<Self>,
        submission: &Submission,
    ) -> impl Future<Output = Result<Vec<(InputRole, Checked)>, ServiceError>> + Send + 'static {
        let inner = Arc::clone(self);
        let recipe = submission.recipe.clone();
        let (limits, fit) = (submission.limits, submission.fit);
        let sources = submission.inputs.clone().into_vec();
        async move {
            let mut checks = JoinSet::new();
            for (role, source) in sources {
                let inner = Arc::clone(&inner);
                let wanted = Wanted {
                    role,
                    limits,
                    fit: fit.filter(|_| role == InputRole::Init),
                };
                let check = async move { (role, inner.check_image(&source, wanted).await) };
                checks.spawn(check.in_current_span());
            }
            let mut checked = Vec::new();
            while let Some(done) = checks.join_next().await {
                let (role, image) = done.map_err(ServiceError::internal)?;
                checked.push((role, image.map_err(|error| in_role(role, error))?));
            }
            let brought = checked.iter().map(|(role, checked)| (*role, checked.image_bytes));
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

    /// What the names of a recipe stand for.
    pub(crate) fn resolve_models(&self, recipe: &Recipe) -> Result<ResolvedModels, ServiceError> {
        let checkpoint = self.find_checkpoint(&recipe.model)?;
        let others = recipe
            .vae
            .iter()
            .map(|vae| (ModelRole::Vae, vae))
            .chain(recipe.loras.iter().map(|lora| (ModelRole::Lora, &lora.model)))
            .chain(
                recipe
                    .embeddings
                    .iter()
                    .map(|embedding| (ModelRole::Embedding, &embedding.model)),
            );
        // Unknown names first: they are wrong in every version.
        let mut known = Vec::new();
        for (role, name) in others {
            known.push((role, self.find(role, name)?));
        }
        match known.into_iter().next() {
            None => Ok(ResolvedModels::checkpoint(checkpoint)),
            // Ignoring it silently would give another picture than the one asked for.
            Some((role, entry)) => Err(ServiceError::NotSupportedYet {
                role,
                name: entry.name.clone(),
            }),
        }
    }

    /// A prompt's keys and values grow with its tokens, in every layer that attends to it.
    async fn check_prompts(&self, recipe: &Recipe) -> Result<(), ServiceError> {
        let (counter, limit) = (self.tokens.clone(), self.config.max_prompt_tokens);
        let prompts = [
            ("prompt", recipe.prompt.clone()),
            ("negative_prompt", recipe.negative_prompt.clone()),
        ];
        off_thread(move || {
            for (field, text) in prompts {
                let excess = counter.excess(&text, limit).map_err(ServiceError::internal)?;
                if let Some(found) = excess {
                    return Err(ServiceError::PromptTooLong { field, found, limit });
                }
            }
            Ok(())
        })
        .await
    }

    /// The entry of a checkpoint whose files can be used now.
    pub(crate) fn find_checkpoint(&self, name: &ModelId) -> Result<Arc<ModelEntry>, ServiceError> {
        let entry = self.find(ModelRole::Checkpoint, name)?;
        match entry.availability() {
            Availability::Available => Ok(entry),
            Availability::Unavailable(reason) => {
                tracing::warn!(model = %entry.name, source = %entry.source, ?reason, "a model cannot be used");
                Err(ServiceError::ModelUnavailable {
                    role: ModelRole::Checkpoint,
                    name: entry.name.clone(),
                    reason: reason.to_string(),
                })
            }
        }
    }

    fn find(&self, role: ModelRole, name: &ModelId) -> Result<Arc<ModelEntry>, ServiceError> {
        let kind = match role {
            ModelRole::Checkpoint => ModelKind::Checkpoint,
            ModelRole::Vae => ModelKind::Vae,
            ModelRole::Lora => ModelKind::Lora,
            ModelRole::Embedding => ModelKind::Embedding,
        };
        match self.catalog.resolve(name, kind) {
            Ok(entry) => Ok(entry),
            Err(CatalogError::NotFound {
                kind: _,
                name,
                nearest,
            }) => Err(ServiceError::ModelNotFound { role, name, nearest }),
            Err(other) => Err(ServiceError::internal(other)),
        }
    }

    /// The image of a source, decoded once and brought to the size that is wanted.
    async fn check_image(
        self: &Arc<Self>,
        source: &ImageSource,
        wanted: Wanted,
    ) -> Result<Checked, ServiceError> {
        let bytes = match source {
            ImageSource::Inline(bytes) => bytes.clone(),
            ImageSource::Url(url) => self.fetcher.fetch(url).await.map_err(ServiceError::not_fetched)?,
        };
        // Bounds what decoding takes, whatever the number of connections; what stays afterwards is in the account.
        let permit = Arc::clone(&self.decoding).acquire_owned().await;
        let permit = permit.map_err(ServiceError::internal)?;
        let decoded = image_codec::decoded_bytes(&bytes, wanted.limits)?;
        let needed = decoded.max(wanted.fit.map_or(0, Size::rgb_bytes));
        self.admitted.check(needed)?;
        let inner = Arc::clone(self);
        off_thread(move || {
            // It goes along, because this runs on when the caller hangs up.
            let _permit = permit;
            let (file, image, note) = decoded_file(bytes, wanted)?;
            let room = inner.admitted.reserve(image.size_bytes());
            Ok(Checked {
                file,
                image_bytes: image.size_bytes(),
                image: room.map(|room| (image, room)),
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
        let init = checked.iter().find(|(role, _)| *role == InputRole::Init);
        let pixels = init.map_or(0, |(_, checked)| checked.image_bytes / 3);
        let work = planned.work(&submission.recipe, pixels);
        let stored = self.store_inputs(id, checked).await?;
        let mut job = submission.into_job(id, self.clock.wall(), stored.keys);
        job.notes.extend(stored.notes);
        self.insert(job).await?;
        self.progress.expect(id, work);
        self.admitted.keep(
            id,
            Admitted {
                models: planned.models,
                images: stored.decoded,
            },
        );
        self.push(id).await;
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

    pub(crate) async fn insert(&self, job: Job) -> Result<(), ServiceError> {
        match self.store.insert(job).await {
            Ok(()) => Ok(()),
            Err(JobsError::Full { .. }) => Err(ServiceError::Overloaded),
            Err(error) => Err(ServiceError::store("store the job")(error)),
        }
    }

    /// The job is safe. If it cannot be queued, the sweeper will do it.
    pub(crate) async fn push(&self, id: JobId) {
        if let Err(error) = self.queue.push(id).await {
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
