//! A finished picture on its way out: looked at and encoded off the device thread, then stored under a name made of job and index.
//!
//! A second attempt writes the same picture under the same name, so running twice is harmless, and pictures that an attempt
//! has left whole need not be made again.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_engine::FinishedImage;
use pentimento_storage::StorageError;
use pentimento_types::{
    Findings, HasKind as _, ImageKey, Job, JobState, SafetyPolicy, StoredImage, describe_chain,
};

use crate::ServiceError;
use crate::image_codec::{self, ImageMetadata, encode_as};
use crate::inner::{Inner, image_key};
use crate::inputs::STORED_LIMITS;
use crate::off_thread::off_thread;
use crate::signing::OriginOnce;

/// Encodes and stores picture number `index` of a job.
pub(crate) async fn deliver(
    inner: Arc<Inner>,
    (job, origin): (Job, Arc<OriginOnce>),
    index: u32,
    finished: FinishedImage,
) -> Result<(u32, StoredImage), ServiceError> {
    let FinishedImage {
        image,
        findings,
        precision,
    } = finished;
    // Before there is room for the picture, since whoever has room must not wait for more.
    inner.origin_of(&job, &origin).await?;
    // Before it is looked at: what is handed out is the whole picture.
    let (image, room) = inner.put_back(&job, image).await?;
    let (format, quality) = (job.delivery.format, job.delivery.jpeg_quality);
    let size = image.size();
    let key = image_key(&job, index);
    // The operator's rule of now: the job may be older than it.
    let policy = inner.config.safety.policy(job.delivery.safety);
    let (checker, recipe, task) = (Arc::clone(&inner), job.recipe.clone(), job.inputs.task());
    let files = inner.checker_files(policy).await?;
    let (bytes, seed, findings) = off_thread(move || {
        // Until the picture is a file.
        let _room = room;
        let passed = checker.safety.pass(image, policy, &files);
        let (image, found) = passed.map_err(ServiceError::SafetyChecker)?;
        // Without a checker it stays what the engine says.
        let findings = if found.nsfw.is_some() { found } else { findings };
        let metadata = ImageMetadata {
            nsfw: findings.nsfw,
            ..ImageMetadata::new(&recipe, task, index, size).computed_in(precision)
        };
        let image = checker.watermarked(image, &recipe);
        let file = encode_as(
            &image,
            (format, quality),
            (&metadata, checker.config.marks.of(&recipe)),
        )?;
        let file = checker.signed(file, format, origin.found())?;
        Ok((file, metadata.seed, findings))
    })
    .await?;
    // In a task of its own: a write that is given up half-way may end all the same, when nobody looks any more.
    let (writing, name) = (Arc::clone(&inner), key.clone());
    let written = inner
        .runtime
        .spawn(async move { store(&writing, &job, name, bytes).await });
    written.await.map_err(ServiceError::internal)??;
    Ok((
        index,
        StoredImage {
            key,
            format,
            size,
            seed,
            findings,
        },
    ))
}

/// Stores a picture, and deletes it where its job was cancelled or deleted meanwhile: who deleted it has seen no picture, and the
/// links to it were given out with the job.
async fn store(inner: &Inner, job: &Job, key: ImageKey, bytes: Bytes) -> Result<(), ServiceError> {
    // Counted while it waits for room on the disk, which the next pictures do as well.
    let waits_within = inner.admitted.reserve(bytes.len() as u64);
    let stored = if waits_within.is_some() {
        let put = || {
            let (images, key, bytes) = (inner.images.clone(), key.clone(), bytes.clone());
            async move { images.put(&key, bytes).await }
        };
        inner.patiently(job.id, put).await
    } else {
        inner.images.put(&key, bytes).await
    };
    stored.map_err(not_stored)?;
    // After the write: a deletion that comes later finds the picture.
    let is_wanted = match inner.store.get(job.id).await {
        Ok(job) => job.is_some_and(|job| job.state != JobState::Cancelled),
        // Its end will not be written either, or the sweeper finds the picture.
        Err(_) => true,
    };
    if !is_wanted && let Err(error) = inner.images.delete(&key).await {
        tracing::warn!(job = %job.id, error = describe_chain(&error), "a picture that nobody wants could not be deleted");
    }
    Ok(())
}

/// Says in words what an operator can mend.
fn not_stored(error: StorageError) -> ServiceError {
    let what = if matches!(error, StorageError::Full { .. }) {
        "store the picture: its disk is full"
    } else {
        "store the picture"
    };
    ServiceError::Store {
        what,
        kind: error.kind(),
        source: Box::new(error),
    }
}

/// The pictures that an earlier attempt has stored, where all of them are there and whole: it got that far, and its end was
/// not written down any more.
///
/// None where there was no attempt, and where the safety checker looks at them: what it found is written with the end, and a
/// picture that has been replaced tells it nothing any more.
///
/// # Errors
/// When the store does not say whether they are there.
pub(crate) async fn left_by_earlier_attempt(
    inner: &Inner,
    job: &Job,
) -> Result<Option<Vec<StoredImage>>, StorageError> {
    let is_checked = inner.config.safety.policy(job.delivery.safety) != SafetyPolicy::Off;
    if job.attempt == 0 || is_checked {
        return Ok(None);
    }
    let mut images = Vec::new();
    for index in 0..job.recipe.image_count {
        let key = image_key(job, index);
        let file = match inner.images.get(&key).await {
            Ok(file) => file,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = off_thread(move || {
            // Decoded, because only that reads the file to its end.
            let image = image_codec::decode(&file, STORED_LIMITS)?;
            Ok(image.size())
        });
        let Ok(size) = size.await else { return Ok(None) };
        images.push(StoredImage {
            key,
            format: job.delivery.format,
            size,
            seed: ImageMetadata::new(&job.recipe, job.inputs.task(), index, size).seed,
            findings: Findings::default(),
        });
    }
    Ok(Some(images))
}
