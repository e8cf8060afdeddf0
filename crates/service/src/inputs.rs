//! The input images of a job, from the store to pixels.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_outbound::{AddressGuard, FetchLimits, GuardedClient, ImageFetcher};
use pentimento_types::{ApiKeyId, Framing, InputRole, Inputs, Job, RgbImage};

use crate::admitted::DecodedImages;
use crate::framing::{FramedFiles, framed_bytes};
use crate::image_codec::Decoding;
use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{InputLimits, ServiceError, image_codec};

/// The dialect's limits held when the job was accepted; these only keep a changed file from taking the memory.
pub(crate) const STORED_LIMITS: InputLimits = InputLimits {
    max_side: u32::MAX,
    max_pixels: u64::MAX,
    max_bytes: 1 << 30,
};

/// Gets images of at most `max_bytes` from the addresses that `guard` allows.
#[must_use]
pub fn image_fetcher(guard: AddressGuard, max_bytes: u64) -> ImageFetcher {
    let client = Arc::new(GuardedClient::new(guard));
    ImageFetcher::new(client, FetchLimits::with_max_bytes(max_bytes))
}

/// Every request has one, so that nobody sees this.
pub(crate) fn no_init() -> ServiceError {
    ServiceError::internal("a job has no image to start from")
}

/// The input images of a job that has no place in the engine yet.
#[derive(Debug)]
pub(crate) enum PendingInputs {
    /// As submit has decoded them; the one to start from is the first.
    Decoded(Vec<(InputRole, RgbImage)>),
    /// Stored files, with what decoding each will take.
    Files(Vec<(InputRole, Bytes, Decoding)>),
    /// The same of a job that is framed.
    Framed(Framing, FramedFiles),
}

impl PendingInputs {
    /// Gives up the room that submit had reserved.
    pub(crate) fn decoded(images: DecodedImages) -> Self {
        Self::Decoded(images.into_vec())
    }

    /// Reads the stored files of a job, without decoding them.
    pub(crate) async fn read(inner: &Inner, job: &Job) -> Result<Self, ServiceError> {
        let read = async |key| {
            let file = inner.images.get(key).await;
            file.map_err(ServiceError::store("read the input picture"))
        };
        if let Some(framing) = job.recipe.framing {
            let init = read(job.inputs.init()).await?;
            let mask = match job.inputs.mask() {
                Some(mask) => Some(read(mask).await?),
                None => None,
            };
            let files = FramedFiles::look_at(init, mask, (&framing, STORED_LIMITS))?;
            return Ok(Self::Framed(framing, files));
        }
        let mut files = Vec::new();
        for (role, key) in job.inputs.iter() {
            let file = read(key).await?;
            let decoding = image_codec::look_at(&file, STORED_LIMITS)?;
            files.push((role, file, decoding));
        }
        Ok(Self::Files(files))
    }

    /// What each image takes when it is decoded, in bytes.
    pub(crate) fn image_bytes(&self) -> Vec<(InputRole, u64)> {
        match self {
            Self::Decoded(images) => images
                .iter()
                .map(|(role, image)| (*role, image.size_bytes()))
                .collect(),
            Self::Files(files) => files
                .iter()
                .map(|(role, _, decoding)| (*role, decoding.image_bytes()))
                .collect(),
            Self::Framed(framing, files) => framed_bytes(framing, files.mask.is_some()),
        }
    }

    /// Decodes what is not decoded yet, one file after the other, each in the same room as at the door.
    pub(crate) async fn decode(
        self,
        inner: &Inner,
        owner: &ApiKeyId,
    ) -> Result<Inputs<RgbImage>, ServiceError> {
        let images = match self {
            Self::Decoded(images) => images,
            Self::Framed(framing, files) => {
                let framed = inner.framed(owner, files, (framing, STORED_LIMITS)).await?;
                // The images themselves are in the account of the job's place.
                framed.0.into_vec()
            }
            Self::Files(files) => {
                let mut images = Vec::new();
                for (role, file, decoding) in files {
                    let room = inner.room_for(owner, decoding).await?;
                    let image = off_thread(move || {
                        let image = image_codec::decode(&file, STORED_LIMITS);
                        // The image itself is in the account of the job's place.
                        drop(room);
                        image
                    });
                    images.push((role, image.await?));
                }
                images
            }
        };
        let mut images = images.into_iter();
        let (_, init) = images.next().ok_or_else(no_init)?;
        Ok(images.fold(Inputs::new(init), |inputs, (role, image)| {
            inputs.with(role, image)
        }))
    }
}
