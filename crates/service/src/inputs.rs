//! The input pictures of a job, from the store to pixels.

use pentimento_types::{ImageSource, Job, RgbPicture};

use crate::service::Inner;
use crate::{InputLimits, ServiceError, image_codec};

/// The dialect's limits held when the job was accepted; these only keep a changed file from taking the memory.
const LIMITS: InputLimits = InputLimits {
    max_side: 16_384,
    max_bytes: 1 << 30,
};

/// Reads and decodes the picture to start from.
pub(crate) async fn load(inner: &Inner, job: &Job) -> Result<RgbPicture, ServiceError> {
    let bytes = match &job.request.init_image {
        ImageSource::Inline(bytes) => bytes.clone(),
        ImageSource::Stored(key) => {
            let read = inner.images.get(key).await;
            read.map_err(ServiceError::store("read the input picture"))?
        }
    };
    let decoded = tokio::task::spawn_blocking(move || image_codec::decode(&bytes, LIMITS)).await;
    decoded.map_err(|source| ServiceError::Internal {
        source: Box::new(source),
    })?
}
