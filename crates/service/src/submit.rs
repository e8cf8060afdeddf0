//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_catalog::{Availability, CatalogError, ModelEntry, ModelKind};
use pentimento_engine::ResolvedModels;
use pentimento_jobs::{JobPlace, JobsError, QueueEntry};
use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, ImageKey, ImageSource, InputRole, Inputs, Job, JobId, JobNote, ModelId,
    Recipe, Reservation, RgbImage, Size, describe_chain,
};

use crate::admitted::{Admitted, DecodedImages};
use crate::inner::{Inner, Lifecycle};
use crate::off_thread::off_thread;
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
    /// A place for the job comes first, so that a refusal for want of one costs nothing and comes at once. Then
    /// every named model is resolved, images at addresses are fetched, and all images are decoded within the limits
    /// before anything is stored. When the future is dropped before it returns, no job is left behind.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `Mask`, `PromptTooLong`, `NotSupportedYet`, `Overloaded`, `ShareTaken` and `ShuttingDown` variants.
    pub async fn submit(&self, submission: Submission) -> Result<JobId, ServiceError> {
        let inner = &self.inner;
        inner.check_open()?;
        let place = inner.place(&submission.owner)?;
        let models = inner.resolve_models(&submission.recipe)?;
        inner.check_prompts(&submission.recipe).await?;
        let mut checked = Vec::new();
        // The mask first: it is the smaller one, and the one that is more often wrong.
        for (role, source) in submission.inputs.iter().collect::<Vec<_>>().into_iter().rev() {
            let wanted = Wanted {
                role,
                limits: submission.limits,
                fit: submission.fit.filter(|_| role == InputRole::Init),
            };
            let image = inner.check_image(source, wanted).await;
            checked.push((role, image.map_err(|error| in_role(role, error))?));
        }
        let brought = checked
            .iter()
            .map(|(role, checked)| (*role, checked.size.rgb_bytes()));
        inner.admitted.check(submission.recipe.image_bytes(brought))?;
        let accepted = Accepted {
            submission,
            models,
            checked,
            place,
        };
        inner.accept(accepted).await
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
struct Checked {
    /// As it is stored.
    file: Bytes,
    size: Size,
    /// The pixels with the room that they take; None where there was none, so that they will be decoded again.
    image: Option<(RgbImage, Reservation)>,
    note: Option<JobNote>,
}

/// A request that has become a job in all but name.
struct Accepted {
    submission: Submission,
    models: ResolvedModels,
    checked: Vec<(InputRole, Checked)>,
    place: JobPlace,
}

/// Says which image an error is about.
fn in_role(role: InputRole, error: ServiceError) -> ServiceError {
    match role {
        InputRole::Init => error,
        InputRole::Mask => ServiceError::Mask(Box::new(error)),
    }
}

impl Inner {
    fn check_open(&self) -> Result<(), ServiceError> {
        if self.lifecycle() == Lifecycle::Open {
            Ok(())
        } else {
            Err(ServiceError::ShuttingDown)
        }
    }

    /// A place for one more job of this caller.
    fn place(&self, owner: &ApiKeyId) -> Result<JobPlace, ServiceError> {
        self.store.reserve(owner).map_err(not_stored)
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
                size: image.size(),
                image: room.map(|room| (image, room)),
                note,
            })
        })
        .await
    }

    /// Stores inputs and job, then queues the job.
    async fn accept(self: &Arc<Self>, accepted: Accepted) -> Result<JobId, ServiceError> {
        let Accepted {
            submission,
            models,
            checked,
            place,
        } = accepted;
        let _admission = self.admission.read().await;
        self.check_open()?;
        let id = JobId::new();
        let unfinished = Unfinished {
            inner: Some(Arc::clone(self)),
            id,
        };
        let mut inputs = Inputs::new(ImageKey::input(id, InputRole::Init));
        let mut decoded = Some(DecodedImages::default());
        let mut notes = Vec::new();
        let mut work = 0;
        for (role, checked) in checked {
            let Checked {
                file,
                size,
                image,
                note,
            } = checked;
            notes.extend(note);
            if role == InputRole::Init {
                work = submission.recipe.work(size);
            }
            let key = ImageKey::input(id, role);
            let stored = self.images.put(&key, file).await;
            stored.map_err(ServiceError::store("store the input picture"))?;
            inputs = inputs.with(role, key);
            decoded = decoded.zip(image).map(|(mut decoded, (image, room))| {
                decoded.add(role, image, room);
                decoded
            });
        }
        let job = Job {
            owner: submission.owner,
            dialect: submission.dialect,
            delivery: submission.delivery,
            notes,
            work,
            ..Job::queued(id, self.clock.wall(), submission.recipe, inputs)
        };
        let entry = QueueEntry::of(&job);
        self.store.insert(job, place).await.map_err(not_stored)?;
        self.admitted.keep(
            id,
            Admitted {
                models,
                images: decoded,
            },
        );
        // The job is safe now. If it cannot be queued, the sweeper will do it.
        if let Err(error) = self.queue.push(entry).await {
            tracing::warn!(job = %id, error = describe_chain(&error), "a stored job could not be queued yet");
        }
        unfinished.done();
        Ok(id)
    }
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
struct Unfinished {
    inner: Option<Arc<Inner>>,
    id: JobId,
}

impl Unfinished {
    fn done(mut self) {
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
