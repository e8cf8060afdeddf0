//! The input images of a job, from the store to pixels.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pentimento_outbound::{AddressGuard, FetchLimits, GuardedClient, ImageFetcher};
use pentimento_types::{Framing, InputRole, Inputs, Job, RgbImage, Start};

use crate::admitted::DecodedImages;
use crate::framing::{FramedFiles, is_framed};
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

/// Every image of a request has been looked at, so that nobody sees this.
pub(crate) fn missing(role: InputRole) -> ServiceError {
    ServiceError::internal(format!("a job's {} is not there", role.as_str()))
}

/// The input images of a job that has no place in the engine yet.
#[derive(Debug)]
pub(crate) enum PendingInputs {
    /// As submit has decoded them.
    Decoded(Vec<(InputRole, RgbImage)>),
    /// Stored files, with what decoding each will take.
    Files {
        /// Those of picture and mask, where the job is framed.
        framed: Option<(Framing, FramedFiles)>,
        /// The others, or all.
        files: Vec<(InputRole, Bytes, Decoding)>,
    },
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
        let mut framed = None;
        if let (Some(framing), Start::Image { init, mask }) = (job.recipe.framing, job.inputs.start()) {
            let init = read(init).await?;
            let mask = match mask {
                Some(mask) => Some(read(mask).await?),
                None => None,
            };
            let files = FramedFiles::look_at(init, mask, (&framing, STORED_LIMITS))?;
            framed = Some((framing, files));
        }
        let mut files = Vec::new();
        for (role, key) in job.inputs.iter() {
            if framed.is_some() && is_framed(role) {
                continue;
            }
            let file = read(key).await?;
            let decoding = image_codec::look_at(&file, STORED_LIMITS)?;
            files.push((role, file, decoding));
        }
        Ok(Self::Files { framed, files })
    }

    /// What the images of the job take when they are decoded, in bytes: those that it brings, and those that it will be given.
    pub(crate) fn image_bytes(&self, job: &Job) -> u64 {
        let brought: Vec<(InputRole, u64)> = match self {
            Self::Decoded(images) => images
                .iter()
                .map(|(role, image)| (*role, image.size_bytes()))
                .collect(),
            Self::Files { framed, files } => {
                let framed = framed
                    .iter()
                    .flat_map(|(framing, files)| files.framed_bytes(framing));
                let files = files.iter();
                let files = files.map(|(role, _, decoding)| (*role, decoding.image_bytes()));
                framed.chain(files).collect()
            }
        };
        let result = match job.inputs.start() {
            Start::Noise(size) => size.rgb_bytes(),
            // As large as the one to start from.
            Start::Image { .. } => {
                let mut sizes = brought.iter();
                let init = sizes.find(|(role, _)| *role == InputRole::Init);
                init.map_or(0, |(_, bytes)| *bytes)
            }
        };
        let brought = brought.into_iter().map(|(_, bytes)| bytes);
        job.recipe.image_bytes(result, brought)
    }

    /// Decodes what is not decoded yet of a job's images, one file after the other, each in the same room as at the door.
    pub(crate) async fn decode(self, inner: &Inner, job: &Job) -> Result<Inputs<RgbImage>, ServiceError> {
        let images = match self {
            Self::Decoded(images) => images,
            Self::Files { framed, files } => {
                let mut images = Vec::new();
                if let Some((framing, files)) = framed {
                    let framed = inner.framed(&job.owner, files, (framing, STORED_LIMITS)).await?;
                    // The room was for the files; the images themselves are in the account of the job's place.
                    images.extend(framed.0.into_vec());
                }
                for (role, file, decoding) in files {
                    let room = inner.room_for(&job.owner, decoding).await?;
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
        let mut images: BTreeMap<InputRole, RgbImage> = images.into_iter().collect();
        let decoded = |role, _: &_| images.remove(&role).ok_or_else(|| missing(role));
        job.inputs.try_map(decoded)
    }
}
