//! Submit: everything that can be refused is refused before anything is stored, and a job's id is given out after it is.

mod fit;
mod input_files;
mod submission;
mod unfinished;

use std::collections::BTreeMap;
use std::sync::Arc;

use pentimento_engine::ResolvedModels;
use pentimento_jobs::{Inserted, JobPlace, JobsError, QueueEntry, known_request};
use pentimento_types::{
    ApiKeyId, ImageKey, InputRole, Inputs, Job, JobId, JobNote, Recipe, Size, Start, describe_chain,
};
use tokio::sync::OwnedRwLockReadGuard;
use tracing::Instrument as _;

pub use self::fit::Fit;
use self::fit::STEP;
pub(crate) use self::input_files::{Checked, keep_everything, size_of};
pub use self::submission::Submission;
pub(crate) use self::unfinished::{Unfinished, goes_on_alone};
use crate::admitted::{Admitted, DecodedImages};
use crate::device_time::DeviceTime;
use crate::inner::{Inner, Lifecycle};
use crate::inputs::missing;
use crate::off_thread::off_thread;
use crate::safety;
use crate::{InputLimits, Service, ServiceError};

/// So many numbers in a row are never all taken, unless nearly all are.
const NUMBERS_TRIED: usize = 20;

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

/// What is known of a request that was not refused, before its images are there.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) models: ResolvedModels,
    pub(crate) time: DeviceTime,
    /// What the caller should be told.
    pub(crate) notes: Vec<JobNote>,
    pub(crate) place: JobPlace,
}

/// Refuses the size of what is to be computed from noise, or from a picture that is framed. A UNet takes latents of whole pixels only, and nothing is cropped
/// from what was never given.
fn check_size(size: Size, limits: InputLimits) -> Result<(), ServiceError> {
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
        submission.fit = submission.fit.settled(models.checkpoint.native_side());
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
