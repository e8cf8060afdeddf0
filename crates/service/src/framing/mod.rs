//! Pictures and masks as a job's [`Framing`] wants them computed, and what was computed put back into the caller's picture.
//!
//! Both follow from the files that the caller sent, which are kept as they came until their job ends. Kept pixels are the
//! caller's own where the blurred mask is black.

mod fill;
mod grey;
mod region;
mod resize;

use bytes::Bytes;
use pentimento_types::{ApiKeyId, Framing, InputRole, MaskedContent, ResizeMode, RgbImage, Size};

use self::fill::filled;
use self::grey::Grey;
use self::region::Region;
use self::resize::fitted;
use crate::decode_room::DecodeRoom;
use crate::image_codec::{self, Decoding};
use crate::inner::Inner;
use crate::off_thread::off_thread;
use crate::{InputLimits, ServiceError};

/// The files of a job that is framed, looked at and not decoded.
#[derive(Debug)]
pub(crate) struct FramedFiles {
    pub(crate) init: Bytes,
    pub(crate) mask: Option<Bytes>,
    /// What decoding and framing them takes.
    pub(crate) decoding: Decoding,
}

impl FramedFiles {
    /// Reads the headers.
    pub(crate) fn look_at(
        init: Bytes,
        mask: Option<Bytes>,
        (framing, limits): (&Framing, InputLimits),
    ) -> Result<Self, ServiceError> {
        let of_init = image_codec::look_at(&init, limits)?;
        let of_mask = mask.as_ref().map(|mask| image_codec::look_at(mask, limits));
        let of_mask = of_mask.transpose().map_err(of_mask_file)?;
        let levels = of_mask.map_or(0, |mask| mask.working_bytes + mask.size.pixels() * BYTES_OF_LEVEL);
        let working_bytes = of_init
            .working_bytes
            .saturating_add(of_init.size.rgb_bytes())
            .saturating_add(levels)
            .saturating_add(framing.size.pixels() * BYTES_OF_FRAMED);
        Ok(Self {
            init,
            mask,
            decoding: Decoding {
                size: of_init.size,
                working_bytes,
            },
        })
    }

    /// What each image takes once it is framed, in bytes.
    pub(crate) fn framed_bytes(&self, framing: &Framing) -> Vec<(InputRole, u64)> {
        let bytes = framing.size.rgb_bytes();
        let mask = self.mask.as_ref().map(|_| (InputRole::Mask, bytes));
        std::iter::once((InputRole::Init, bytes)).chain(mask).collect()
    }
}

/// A level, a copy of it while it is blurred, and the image that a mask is decoded to.
const BYTES_OF_LEVEL: u64 = 5;
/// A pixel of the picture, of the mask, and three of four channels while it is filled.
const BYTES_OF_FRAMED: u64 = 3 + 3 + 3 * 4;

/// What is computed with.
#[derive(Debug)]
pub(crate) struct FramedImages {
    pub(crate) init: RgbImage,
    pub(crate) mask: Option<RgbImage>,
    /// Whether nothing of the caller's picture is replaced by what would be computed.
    pub(crate) keeps_everything: bool,
}

impl FramedImages {
    /// With their roles, the one to start from first.
    pub(crate) fn into_vec(self) -> Vec<(InputRole, RgbImage)> {
        let mask = self.mask.map(|mask| (InputRole::Mask, mask));
        std::iter::once((InputRole::Init, self.init))
            .chain(mask)
            .collect()
    }
}

/// Whether a framing is about images in this role.
pub(crate) const fn is_framed(role: InputRole) -> bool {
    match role {
        InputRole::Init | InputRole::Mask => true,
        InputRole::IpAdapter => false,
    }
}

impl Inner {
    /// Decodes and frames the files of a job. The room is that for the caller's files as long as it takes.
    pub(crate) async fn framed(
        &self,
        owner: &ApiKeyId,
        files: FramedFiles,
        (framing, limits): (Framing, InputLimits),
    ) -> Result<(FramedImages, DecodeRoom), ServiceError> {
        let room = self.room_for(owner, files.decoding).await?;
        off_thread(move || {
            let init = image_codec::decode_on_white(&files.init, limits)?;
            let mask = files.mask.map(|mask| read_mask(&mask, &framing, limits));
            let framed = framed(init, mask.transpose()?, &framing)?;
            Ok((framed, room))
        })
        .await
    }
}

/// The whole picture of these files with what was computed in its place; as it was made where there is no mask. Where nothing
/// was `made`, it is the caller's own, without what the mask was filled with. Takes CPU time.
pub(crate) fn whole(
    files: FramedFiles,
    made: Option<RgbImage>,
    (framing, limits): (&Framing, InputLimits),
) -> Result<RgbImage, ServiceError> {
    let init = image_codec::decode_on_white(&files.init, limits)?;
    let Some(made) = made else {
        return Ok(match framing.only_masked {
            Some(_) => init,
            None => fitted(&init, framing.size, framing.resize),
        });
    };
    let Some(mask) = files.mask else { return Ok(made) };
    let mask = read_mask(&mask, framing, limits)?;
    put_back(made, init, mask, framing)
}

/// The mask as it counts: turned round, then blurred.
fn read_mask(file: &Bytes, framing: &Framing, limits: InputLimits) -> Result<Grey, ServiceError> {
    let image = image_codec::decode_drawn_mask(file, limits).map_err(of_mask_file)?;
    let mask = Grey::of(&image);
    drop(image);
    let mask = if framing.invert_mask {
        mask.inverted()
    } else {
        mask
    };
    Ok(mask.blurred(framing.mask_blur))
}

fn framed(init: RgbImage, mask: Option<Grey>, framing: &Framing) -> Result<FramedImages, ServiceError> {
    let Some(mask) = mask else {
        let init = fitted(&init, framing.size, framing.resize);
        return Ok(FramedImages {
            init,
            mask: None,
            keeps_everything: false,
        });
    };
    // Every level above 0 shows something of what is made, be it below what counts as painted.
    let keeps_everything = mask.levels.iter().all(|level| *level == 0);
    let (init, mask) = match framing.only_masked {
        Some(padding) => {
            let region = region((&mask, init.size()), padding, framing.size)?;
            let cut = |image: &RgbImage| fitted(&region.cut(image), framing.size, ResizeMode::Fill);
            (cut(&init), cut(&mask.to_image()))
        }
        None => {
            let fit = |image: &RgbImage| fitted(image, framing.size, framing.resize);
            (fit(&init), fit(&mask.to_image()))
        }
    };
    let init = match framing.masked_content {
        MaskedContent::Fill => filled(&init, &Grey::of(&mask)),
        MaskedContent::Original => init,
    };
    Ok(FramedImages {
        init,
        mask: Some(mask),
        keeps_everything,
    })
}

fn region((mask, of): (&Grey, Size), padding: u32, computed: Size) -> Result<Region, ServiceError> {
    if mask.size != of {
        let mask = mask.size;
        return Err(mask_refused(format!(
            "is {mask} pixels and the picture {of}: to paint only what is masked, both must have one size"
        )));
    }
    // Where nothing is painted nothing is computed either, and the whole picture comes back.
    Ok(Region::around(mask, padding, computed).unwrap_or(Region::whole(of)))
}

fn put_back(made: RgbImage, init: RgbImage, mask: Grey, framing: &Framing) -> Result<RgbImage, ServiceError> {
    let Some(padding) = framing.only_masked else {
        let kept = fitted(&init, framing.size, framing.resize);
        let mask = Grey::of(&fitted(&mask.to_image(), framing.size, framing.resize));
        // A1111 shows all of what was made from half of the way on.
        let shares = mask.levels.iter().map(|level| level.saturating_mul(2));
        let size = kept.size();
        let mut pixels = kept.into_pixels();
        blend(&mut pixels, made.pixels(), shares);
        return Ok(of_pixels(size, pixels));
    };
    let region = region((&mask, init.size()), padding, framing.size)?;
    let piece = fitted(&made, region.size, ResizeMode::Crop);
    let (size, width) = (init.size(), mask.size.width as usize);
    let mut pixels = init.into_pixels();
    let lines = piece.pixels().chunks_exact(3 * region.size.width as usize);
    for (y, line) in (0..region.size.height).zip(lines) {
        let start = (region.y + y) as usize * width + region.x as usize;
        let shares = &mask.levels[start..start + region.size.width as usize];
        blend(&mut pixels[region.line(y, size)], line, shares.iter().copied());
    }
    Ok(of_pixels(size, pixels))
}

fn of_pixels(size: Size, pixels: Vec<u8>) -> RgbImage {
    RgbImage::new(size, pixels).expect("the picture has kept its number of pixels")
}

/// `share` 255ths of the new level and the rest of the old one, rounded to the nearest.
fn blend(kept: &mut [u8], made: &[u8], shares: impl Iterator<Item = u8>) {
    for ((kept, made), share) in kept.chunks_exact_mut(3).zip(made.chunks_exact(3)).zip(shares) {
        let share = u32::from(share);
        for (kept, made) in kept.iter_mut().zip(made) {
            let sum = u32::from(*kept) * (255 - share) + u32::from(*made) * share;
            *kept = u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX);
        }
    }
}

fn mask_refused(problem: String) -> ServiceError {
    of_mask_file(ServiceError::MaskRefused { problem })
}

pub(crate) fn of_mask_file(fault: ServiceError) -> ServiceError {
    ServiceError::OfInput {
        role: InputRole::Mask,
        fault: Box::new(fault),
    }
}

#[cfg(test)]
mod tests;
