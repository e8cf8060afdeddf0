//! The images of a request: fetched, decoded, and brought to what is computed with, before anything is stored.

use std::sync::Arc;

use bytes::Bytes;
use pentimento_engine::keeps_everything;
use pentimento_types::{
    ApiKeyId, ImageSource, InputRole, Inputs, JobNote, Reservation, RgbImage, Size, Start,
};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::fit::Fit;
use super::submission::Submission;
use crate::framing::is_framed;
use crate::image_codec::MaskReading;
use crate::inner::Inner;
use crate::inputs::missing;
use crate::off_thread::off_thread;
use crate::{InputLimits, ServiceError, image_codec};

/// What an input file is read as.
#[derive(Clone, Copy)]
struct Wanted {
    role: InputRole,
    limits: InputLimits,
    /// The size that it is brought to.
    fit: Fit,
    /// How it is read, where it is a mask.
    mask: MaskReading,
    /// What its grey means there: [`pentimento_types::Recipe::differential_diffusion`].
    is_change_map: bool,
}

/// An input file that has been decoded.
#[derive(Debug)]
pub(crate) struct Checked {
    /// As it is stored.
    pub(super) file: Bytes,
    /// As it was sent, where that is another file with a manifest that is kept.
    pub(super) sent: Option<Bytes>,
    size: Size,
    /// The pixels with the room that they take; None where there was none, so that they will be decoded again.
    pub(super) image: Option<(RgbImage, Reservation)>,
    pub(super) note: Option<JobNote>,
    /// Whether it is a mask that leaves everything as it is.
    pub(crate) keeps_everything: bool,
}

/// Whether there is nothing to compute, since the mask is known by now.
pub(crate) fn keep_everything(checked: &[(InputRole, Checked)]) -> bool {
    checked.iter().any(|(_, checked)| checked.keeps_everything)
}

/// Of each image to be made.
pub(crate) fn size_of<I>(inputs: &Inputs<I>, checked: &[(InputRole, Checked)]) -> Result<Size, ServiceError> {
    if let Start::Noise(size) = inputs.start() {
        return Ok(*size);
    }
    let init = checked.iter().find(|(role, _)| *role == InputRole::Init);
    init.map(|(_, checked)| checked.size)
        .ok_or_else(|| missing(InputRole::Init))
}

impl Checked {
    /// A file, and what is computed with in its place.
    pub(crate) fn new(file: Bytes, image: RgbImage, room: Option<Reservation>) -> Self {
        Self {
            file,
            sent: None,
            size: image.size(),
            image: room.map(|room| (image, room)),
            note: None,
            keeps_everything: false,
        }
    }
}

/// Says which image an error is about.
fn in_role(role: InputRole, error: ServiceError) -> ServiceError {
    match role {
        InputRole::Init => error,
        InputRole::Mask | InputRole::IpAdapter => ServiceError::OfInput {
            role,
            fault: Box::new(error),
        },
    }
}

impl Inner {
    /// Fetches and decodes all images at the same time. The first that is wrong ends the others.
    pub(crate) fn check_images(
        self: &Arc<Self>,
        submission: &Submission,
    ) -> impl Future<Output = Result<Vec<(InputRole, Checked)>, ServiceError>> + Send + 'static {
        let inner = Arc::clone(self);
        let recipe = submission.recipe.clone();
        let limits = self.limits_for(submission);
        let (fit, mask) = (submission.fit, submission.mask);
        let inputs = submission.inputs.clone();
        let owner = submission.owner.clone();
        async move {
            let mut checked = Vec::new();
            if let (Some(framing), Start::Image { init, mask }) = (recipe.framing, inputs.start()) {
                let pictures = (init, mask.as_ref());
                checked = inner.check_framed(&owner, pictures, (framing, limits)).await?;
            }
            let mut checks = JoinSet::new();
            for (role, source) in inputs.iter() {
                if recipe.framing.is_some() && is_framed(role) {
                    continue;
                }
                let source = source.clone();
                let inner = Arc::clone(&inner);
                let wanted = Wanted {
                    role,
                    limits,
                    fit: if role == InputRole::Init { fit } else { Fit::AsSent },
                    mask,
                    is_change_map: recipe.differential_diffusion,
                };
                let owner = owner.clone();
                let check = async move { (role, inner.check_image(&owner, &source, wanted).await) };
                checks.spawn(check.in_current_span());
            }
            while let Some(done) = checks.join_next().await {
                let (role, image) = done.map_err(ServiceError::internal)?;
                checked.push((role, image.map_err(|error| in_role(role, error))?));
            }
            let result = size_of(&inputs, &checked)?.rgb_bytes();
            let brought = checked.iter().map(|(_, checked)| checked.size.rgb_bytes());
            inner.admitted.check(recipe.image_bytes(result, brought))?;
            Ok(checked)
        }
    }

    /// The image of a source, decoded once and brought to the size that is wanted.
    async fn check_image(
        self: &Arc<Self>,
        owner: &ApiKeyId,
        source: &ImageSource,
        wanted: Wanted,
    ) -> Result<Checked, ServiceError> {
        let bytes = match source {
            ImageSource::Inline(bytes) => bytes.clone(),
            ImageSource::Url(url) => self.file_at(url, wanted.limits.max_bytes).await?,
        };
        let decoding = image_codec::look_at(&bytes, wanted.limits)?;
        let fitted = wanted.fit.of(decoding.size).rgb_bytes();
        self.admitted.check(decoding.image_bytes().max(fitted))?;
        self.check_decoding(decoding)?;
        let room = self.room_for(owner, decoding).await?;
        let inner = Arc::clone(self);
        off_thread(move || {
            let (file, image, note) = decoded_file(bytes.clone(), wanted)?;
            // By the address of its bytes: a file that is stored as it came is the same one.
            let is_other = wanted.role == InputRole::Init && file.as_ptr() != bytes.as_ptr();
            let signer = inner.signer.as_ref().filter(|_| is_other);
            let sent = signer.and_then(|signer| signer.keeps(&bytes).then_some(bytes));
            let image_size = image.size();
            let keeps_everything =
                wanted.role == InputRole::Mask && keeps_everything(&image, wanted.is_change_map);
            let room = room.keep(&inner.admitted, image.size_bytes());
            let image = room.map(|room| (image, room));
            Ok(Checked {
                file,
                sent,
                size: image_size,
                image,
                note,
                keeps_everything,
            })
        })
        .await
    }
}

/// Decodes a file. One that is not what the image is taken from is replaced by a file of the image: of another size, or a
/// mask in an alpha channel.
fn decoded_file(file: Bytes, wanted: Wanted) -> Result<(Bytes, RgbImage, Option<JobNote>), ServiceError> {
    let (image, note) = match (wanted.role, wanted.mask) {
        (InputRole::Init | InputRole::IpAdapter, _) => (image_codec::decode(&file, wanted.limits)?, None),
        (InputRole::Mask, MaskReading::Transparent) => {
            let image = image_codec::decode_transparent_mask(&file, wanted.limits)?;
            return Ok((image_codec::to_file(&image)?, image, None));
        }
        (InputRole::Mask, MaskReading::White) => {
            let mask = image_codec::decode_mask(&file, wanted.limits)?;
            (mask.image, mask.is_alpha.then_some(JobNote::MaskIsAlpha))
        }
    };
    let size = wanted.fit.of(image.size());
    if size != image.size() {
        let image = image_codec::resized(&image, size);
        return Ok((image_codec::to_file(&image)?, image, note));
    }
    if note.is_some() {
        return Ok((image_codec::to_file(&image)?, image, note));
    }
    Ok((file, image, note))
}
