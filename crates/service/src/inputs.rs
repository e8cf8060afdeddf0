//! The input images of a job, from the store to pixels.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_outbound::{AddressGuard, FetchLimits, GuardedClient, ImageFetcher};
use pentimento_types::{InputRole, Inputs, Job, RgbImage};

use crate::admitted::DecodedImages;
use crate::inner::Inner;
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

/// The input images of a job that has no place in the engine yet.
#[derive(Debug)]
pub(crate) enum PendingInputs {
    /// As submit has decoded them.
    Decoded(Vec<(InputRole, RgbImage)>),
    /// Stored files, with the bytes that each takes when it is decoded.
    Files(Vec<(InputRole, Bytes, u64)>),
}

impl PendingInputs {
    /// Gives up the room that submit had reserved.
    pub(crate) fn decoded(images: DecodedImages) -> Self {
        let (images, _) = images.into_parts();
        Self::Decoded(images)
    }

    /// Reads the stored files of a job, without decoding them.
    pub(crate) async fn read(inner: &Inner, job: &Job) -> Result<Self, ServiceError> {
        let mut files = Vec::new();
        for (role, key) in job.inputs.iter() {
            let read = inner.images.get(key).await;
            let file = read.map_err(ServiceError::store("read the input picture"))?;
            let decoded_bytes = image_codec::decoded_bytes(&file, LIMITS)?;
            files.push((role, file, decoded_bytes));
        }
        Ok(Self::Files(files))
    }

    /// What each image takes when it is decoded, in bytes; the one to start from is the first.
    pub(crate) fn image_bytes(&self) -> Vec<u64> {
        match self {
            Self::Decoded(images) => images.iter().map(|(_, image)| image.size_bytes()).collect(),
            Self::Files(files) => files.iter().map(|(_, _, bytes)| *bytes).collect(),
        }
    }

    /// Decodes what is not decoded yet.
    pub(crate) async fn decode(self) -> Result<Inputs<RgbImage>, ServiceError> {
        let images = match self {
            Self::Decoded(images) => images,
            Self::Files(files) => {
                let decoded = tokio::task::spawn_blocking(move || {
                    let decode = |(role, file, _): (InputRole, Bytes, u64)| {
                        Ok::<_, ServiceError>((role, image_codec::decode(&file, LIMITS)?))
                    };
                    files.into_iter().map(decode).collect::<Result<Vec<_>, _>>()
                });
                decoded.await.map_err(|source| ServiceError::Internal {
                    source: Box::new(source),
                })??
            }
        };
        let mut images = images.into_iter();
        let (_, init) = images.next().ok_or_else(|| ServiceError::Internal {
            source: "a job has no image to start from".into(),
        })?;
        Ok(images.fold(Inputs::new(init), |inputs, (role, image)| {
            inputs.with(role, image)
        }))
    }
}
