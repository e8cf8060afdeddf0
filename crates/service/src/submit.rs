//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_catalog::{Availability, CatalogError, ModelEntry, ModelKind};
use pentimento_engine::ResolvedModels;
use pentimento_jobs::JobsError;
use pentimento_types::{
    ApiKeyId, Delivery, DialectTag, ImageKey, ImageSource, InputRole, Inputs, Job, JobId, JobNote, ModelId,
    Recipe, Reservation, RgbImage, Size, describe_chain,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::admitted::{Admitted, DecodedImages};
use crate::image_codec::Decoding;
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
    /// Every named model is resolved, images at addresses are fetched, and all images are decoded within the limits
    /// before anything is stored. When the future is dropped before it returns, no job is left behind.
    ///
    /// # Errors
    /// The `Model…`, `Image…`, `Mask`, `PromptTooLong`, `NotSupportedYet`, `Overloaded` and `ShuttingDown` variants.
    pub async fn submit(&self, submission: Submission) -> Result<JobId, ServiceError> {
        let inner = &self.inner;
        inner.check_open()?;
        let models = inner.resolve_models(&submission.recipe).await?;
        let counts = inner.store.counts().await;
        let counts = counts.map_err(ServiceError::store("look at the job queue"))?;
        if !counts.has_room() {
            return Err(ServiceError::Overloaded);
        }
        inner.check_prompts(&submission.recipe).await?;
        let mut checked = Vec::new();
        // The mask first: it is the smaller one, and the one that is more often wrong.
        for (role, source) in submission.inputs.iter().collect::<Vec<_>>().into_iter().rev() {
            let wanted = Wanted {
                role,
                limits: InputLimits {
                    max_pixels: submission.limits.max_pixels.min(inner.config.max_image_pixels),
                    ..submission.limits
                },
                fit: submission.fit.filter(|_| role == InputRole::Init),
            };
            let image = inner.check_image(source, wanted).await;
            checked.push((role, image.map_err(|error| in_role(role, error))?));
        }
        let brought = checked.iter().map(|(role, checked)| (*role, checked.image_bytes));
        inner.admitted.check(submission.recipe.image_bytes(brought))?;
        inner.accept(submission, models, checked).await
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

/// What decoding takes, as it is bounded.
enum Work {
    /// In the account of images.
    Counted(Reservation),
    /// Beyond it, one at a time.
    Beyond { _turn: OwnedSemaphorePermit },
}

/// An input file that has been decoded.
struct Checked {
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
    fn check_open(&self) -> Result<(), ServiceError> {
        if self.lifecycle() == Lifecycle::Open {
            Ok(())
        } else {
            Err(ServiceError::ShuttingDown)
        }
    }

    /// What the names of a recipe stand for.
    pub(crate) async fn resolve_models(&self, recipe: &Recipe) -> Result<ResolvedModels, ServiceError> {
        let checkpoint = self.find_checkpoint(&recipe.model).await?;
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
    pub(crate) async fn find_checkpoint(&self, name: &ModelId) -> Result<Arc<ModelEntry>, ServiceError> {
        let entry = self.find(ModelRole::Checkpoint, name)?;
        match self.looks.look(&entry).await {
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
        let decoding = image_codec::look_at(&bytes, wanted.limits)?;
        self.admitted
            .check(decoding.image_bytes().max(wanted.fit.map_or(0, Size::rgb_bytes)))?;
        // Bounds what decoding takes, whatever the number of connections.
        let permit = Arc::clone(&self.decoding).acquire_owned().await;
        let permit = permit.map_err(ServiceError::internal)?;
        let work = self.room_for(decoding).await?;
        let inner = Arc::clone(self);
        off_thread(move || {
            // They go along, because this runs on when the caller hangs up.
            let _permit = permit;
            let (file, image, note) = decoded_file(bytes, wanted)?;
            let kept = image.size_bytes();
            // What stays is the image, which is mostly smaller than what it took to make it.
            let room = match work {
                Work::Counted(mut room) if kept <= room.bytes() => {
                    room.shrink_to(kept);
                    Some(room)
                }
                other @ (Work::Counted(_) | Work::Beyond { .. }) => {
                    drop(other);
                    inner.admitted.reserve(kept)
                }
            };
            let image = room.map(|room| (image, room));
            Ok(Checked {
                file,
                image_bytes: kept,
                image,
                note,
            })
        })
        .await
    }

    /// Room for decoding a file, for which images of jobs that wait are given up. Where jobs in the engine hold it all, one
    /// file at a time is decoded beyond it: who is to wait must be read first.
    async fn room_for(&self, decoding: Decoding) -> Result<Work, ServiceError> {
        let needed = decoding.working_bytes;
        loop {
            match self.admitted.room(needed) {
                Ok(room) => return Ok(Work::Counted(room)),
                Err(full) if full.is_hopeless() => {
                    return Err(ServiceError::ImageWork {
                        size: decoding.size,
                        needed,
                        limit: full.limit,
                    });
                }
                Err(_) if self.admitted.give_up_one() => {}
                Err(_) => break,
            }
        }
        let turn = Arc::clone(&self.decoding_beyond).acquire_owned().await;
        turn.map(|_turn| Work::Beyond { _turn })
            .map_err(ServiceError::internal)
    }

    /// Stores inputs and job, then queues the job.
    async fn accept(
        self: &Arc<Self>,
        submission: Submission,
        models: ResolvedModels,
        checked: Vec<(InputRole, Checked)>,
    ) -> Result<JobId, ServiceError> {
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
        for (role, checked) in checked {
            let Checked {
                file, image, note, ..
            } = checked;
            notes.extend(note);
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
            ..Job::queued(id, self.clock.wall(), submission.recipe, inputs)
        };
        match self.store.insert(job).await {
            Ok(()) => {}
            Err(JobsError::Full { .. }) => return Err(ServiceError::Overloaded),
            Err(error) => return Err(ServiceError::store("store the job")(error)),
        }
        self.admitted.keep(
            id,
            Admitted {
                models,
                images: decoded,
            },
        );
        // The job is safe now. If it cannot be queued, the sweeper will do it.
        if let Err(error) = self.queue.push(id).await {
            tracing::warn!(job = %id, error = describe_chain(&error), "a stored job could not be queued yet");
        }
        unfinished.done();
        Ok(id)
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
