//! The input pictures of a job, from the store to pixels.

use std::sync::Arc;

use pentimento_outbound::{AddressGuard, FetchLimits, GuardedClient, ImageFetcher};
use pentimento_types::{ImageSource, Job, RgbPicture, Task};

use crate::service::Inner;
use crate::{InputLimits, ServiceError, image_codec};

/// The stored name of the picture to start from.
pub(crate) const INIT_IMAGE: &str = "init_image";
/// The stored name of the mask.
pub(crate) const MASK_IMAGE: &str = "mask_image";

/// The dialect's limits held when the job was accepted; these only keep a changed file from taking the memory.
const LIMITS: InputLimits = InputLimits {
    max_side: 16_384,
    max_bytes: 1 << 30,
};

/// Gets pictures of at most `max_bytes` from the addresses that `guard` allows.
#[must_use]
pub fn image_fetcher(guard: AddressGuard, max_bytes: u64) -> ImageFetcher {
    let client = Arc::new(GuardedClient::new(guard));
    ImageFetcher::new(client, FetchLimits::with_max_bytes(max_bytes))
}

/// The decoded pictures of a job.
pub(crate) struct Inputs {
    /// To start from.
    pub(crate) init_image: RgbPicture,
    /// What is repainted.
    pub(crate) mask: Option<RgbPicture>,
}

/// Reads and decodes the input pictures of a job.
pub(crate) async fn load(inner: &Inner, job: &Job) -> Result<Inputs, ServiceError> {
    let mask = match &job.request.task {
        Task::Img2Img => None,
        Task::Inpaint { mask, .. } => Some(load_source(inner, mask).await?),
    };
    Ok(Inputs {
        init_image: load_source(inner, &job.request.init_image).await?,
        mask,
    })
}

async fn load_source(inner: &Inner, source: &ImageSource) -> Result<RgbPicture, ServiceError> {
    let bytes = match source {
        ImageSource::Inline(bytes) => bytes.clone(),
        ImageSource::Url(url) => inner
            .fetcher
            .fetch(url)
            .await
            .map_err(ServiceError::not_fetched)?,
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
