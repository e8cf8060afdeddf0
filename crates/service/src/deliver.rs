//! A finished picture on its way out: looked at and encoded off the device thread, then stored under a name made of job and index.
//!
//! A second attempt writes the same bytes under the same name, so running twice is harmless.

use std::sync::Arc;

use pentimento_engine::FinishedImage;
use pentimento_types::{Job, StoredImage};

use crate::ServiceError;
use crate::image_codec::{ImageMetadata, encode};
use crate::inner::{Inner, image_key};
use crate::off_thread::off_thread;

/// Encodes and stores picture number `index` of a job.
pub(crate) async fn deliver(
    inner: Arc<Inner>,
    job: Job,
    index: u32,
    finished: FinishedImage,
) -> Result<(u32, StoredImage), ServiceError> {
    let FinishedImage { image, findings } = finished;
    let format = job.delivery.format;
    let size = image.size();
    let key = image_key(&job, index);
    let checker = Arc::clone(&inner);
    let (bytes, seed, findings) = off_thread(move || {
        let (image, found) = checker
            .safety
            .pass(image, job.delivery.safety)
            .map_err(ServiceError::SafetyChecker)?;
        // Without a checker it stays what the engine says.
        let findings = if found.nsfw.is_some() { found } else { findings };
        let metadata = ImageMetadata {
            nsfw: findings.nsfw,
            ..ImageMetadata::new(&job.recipe, index, size)
        };
        Ok((encode(&image, format, &metadata)?, metadata.seed, findings))
    })
    .await?;
    let stored = inner.images.put(&key, bytes).await;
    stored.map_err(ServiceError::store("store the picture"))?;
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
