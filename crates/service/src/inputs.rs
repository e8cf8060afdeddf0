//! The input images of a job, from the store to pixels.

use std::sync::Arc;

use pentimento_outbound::{AddressGuard, FetchLimits, GuardedClient, ImageFetcher};
use pentimento_types::{ImageKey, Inputs, Job, RgbPicture};

use crate::service::Inner;
use crate::{InputLimits, ServiceError, image_codec};

/// The dialect's limits held when the job was accepted; these only keep a changed file from taking the memory.
const LIMITS: InputLimits = InputLimits {
    max_side: 16_384,
    max_bytes: 1 << 30,
};

/// Gets images of at most `max_bytes` from the addresses that `guard` allows.
#[must_use]
pub fn image_fetcher(guard: AddressGuard, max_bytes: u64) -> ImageFetcher {
    let client = Arc::new(GuardedClient::new(guard));
    ImageFetcher::new(client, FetchLimits::with_max_bytes(max_bytes))
}

/// Reads and decodes the input images of a job.
pub(crate) async fn load(inner: &Inner, job: &Job) -> Result<Inputs<RgbPicture>, ServiceError> {
    let mut images = Inputs::new(load_stored(inner, job.inputs.init()).await?);
    for (role, key) in job.inputs.iter().skip(1) {
        images = images.with(role, load_stored(inner, key).await?);
    }
    Ok(images)
}

async fn load_stored(inner: &Inner, key: &ImageKey) -> Result<RgbPicture, ServiceError> {
    let read = inner.images.get(key).await;
    let bytes = read.map_err(ServiceError::store("read the input image"))?;
    let decoded = tokio::task::spawn_blocking(move || image_codec::decode(&bytes, LIMITS)).await;
    decoded.map_err(|source| ServiceError::Internal {
        source: Box::new(source),
    })?
}
