//! Images of another size, byte for byte as Pillow's `Image.resize(size, LANCZOS)`, and files of them.

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use pentimento_engine::{Filter, Part, resampled, resampled_part};
use pentimento_types::{RgbImage, Size};

use crate::ServiceError;

/// The image in another size. Takes CPU time: call it on a blocking thread.
#[must_use]
pub fn resized(image: &RgbImage, size: Size) -> RgbImage {
    resampled(image, size, Filter::Lanczos)
}

/// A part of what [`resized`] gives, at the cost of that part.
pub(crate) fn resized_part(image: &RgbImage, size: Size, part: &Part) -> RgbImage {
    resampled_part(image, (size, Filter::Lanczos), part)
}

/// A PNG file of an image that no caller has sent in this form, made quickly.
pub(crate) fn to_file(image: &RgbImage) -> Result<Bytes, ServiceError> {
    let size = image.size();
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, PngFilter::Adaptive)
        .write_image(image.pixels(), size.width, size.height, ExtendedColorType::Rgb8)
        .map_err(ServiceError::internal)?;
    Ok(file.into())
}
