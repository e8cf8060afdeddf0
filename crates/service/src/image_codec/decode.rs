//! Bytes to RGB, as Pillow's `Image.open(…).convert("RGB")` after `ImageOps.exif_transpose`:
//! alpha is dropped and not blended, 16 bits become 8 by their high byte, palettes and grey are expanded, of an animation
//! the first frame counts, colour profiles are ignored.
//!
//! One difference from Pillow: 16-bit grey keeps its high byte, where Pillow clips it to white.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pentimento_types::{ImageFormat, RgbImage};

use super::container::Container;
use super::decoding::Decoding;
use super::pixels::{DecodedMask, Pixels};
use super::refusal::undecodable;
use super::{jpeg_file, png_file, webp_file};
use crate::{InputLimits, ServiceError};

/// Reads a whole image. Takes CPU time: call it on a blocking thread.
///
/// # Errors
/// The `Image…` variants of [`ServiceError`], whose texts are safe to show.
pub fn decode(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_as(bytes, limits, Pixels::into_image)
}

/// Reads a whole mask: as [`decode`] does, or its alpha channel where only that has a shape. Takes CPU time: call it on a
/// blocking thread.
///
/// # Errors
/// As [`decode`].
pub fn decode_mask(bytes: &[u8], limits: InputLimits) -> Result<DecodedMask, ServiceError> {
    decode_as(bytes, limits, Pixels::into_mask)
}

/// Reads a whole mask in which what is transparent is repainted: the result has white there, and grey where it is half
/// transparent. Takes CPU time: call it on a blocking thread.
///
/// # Errors
/// As [`decode`], and [`ServiceError::MaskRefused`].
pub fn decode_transparent_mask(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_as(bytes, limits, Pixels::into_transparent_mask)
}

/// Reads a whole image and lays it on white where it is transparent, as A1111's `flatten`.
pub(crate) fn decode_on_white(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_as(bytes, limits, Pixels::into_image_on_white)
}

/// Reads a whole mask as A1111's `create_binary_mask`: where any of it is transparent, its alpha channel at two levels.
pub(crate) fn decode_drawn_mask(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_as(bytes, limits, Pixels::into_drawn_mask)
}

/// What decoding this file will take; read from the header, with nothing allocated.
///
/// # Errors
/// As [`decode`], for all that the header shows.
pub fn look_at(bytes: &[u8], limits: InputLimits) -> Result<Decoding, ServiceError> {
    let look = match container(bytes, limits)? {
        Container::Png => png_file::look_at,
        Container::Jpeg => jpeg_file::look_at,
        Container::Webp => webp_file::look_at,
        Container::Other(what) => return Err(unknown_format(what)),
    };
    contain_panic(|| look(bytes, limits))
}

/// What a file is, by its first bytes; None for what is not read here.
#[must_use]
pub fn format_of(bytes: &[u8]) -> Option<ImageFormat> {
    match Container::of(bytes) {
        Container::Png => Some(ImageFormat::Png),
        Container::Jpeg => Some(ImageFormat::Jpeg),
        Container::Webp => Some(ImageFormat::Webp),
        Container::Other(_) => None,
    }
}

fn decode_as<T>(
    bytes: &[u8],
    limits: InputLimits,
    reading: impl FnOnce(Pixels) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    let decoder = match container(bytes, limits)? {
        Container::Png => png_file::decode,
        Container::Jpeg => jpeg_file::decode,
        Container::Webp => webp_file::decode,
        Container::Other(what) => return Err(unknown_format(what)),
    };
    contain_panic(|| reading(decoder(bytes, limits)?))
}

/// The file's format, when it is not larger than the limit.
fn container(bytes: &[u8], limits: InputLimits) -> Result<Container, ServiceError> {
    let size_bytes = bytes.len() as u64;
    if bytes.is_empty() {
        return Err(ServiceError::ImageEmpty);
    }
    if size_bytes > limits.max_bytes {
        return Err(ServiceError::ImageTooLarge {
            bytes: size_bytes,
            limit: limits.max_bytes,
        });
    }
    Ok(Container::of(bytes))
}

fn unknown_format(what: &str) -> ServiceError {
    undecodable(format!("this is {what}; send a PNG, JPEG or WebP"))
}

/// A decoder that panics has met a file it cannot read; its text is in the log only.
fn contain_panic<T>(decoder: impl FnOnce() -> Result<T, ServiceError>) -> Result<T, ServiceError> {
    // The closure holds nothing but shared bytes, so nothing can be left half changed.
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|_| {
        tracing::error!("an image decoder panicked");
        Err(undecodable("the file is damaged"))
    })
}

#[cfg(test)]
mod tests;
