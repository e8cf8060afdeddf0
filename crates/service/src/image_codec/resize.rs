//! Pictures of another size, with Lanczos' filter of radius 3, widened when shrinking, as Pillow's `LANCZOS`.

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder as _};
use pentimento_types::{RgbImage, Size};

use crate::ServiceError;

/// The image in another size. Takes CPU time: call it on a blocking thread.
pub(crate) fn resized(image: RgbImage, size: Size) -> Result<RgbImage, ServiceError> {
    let fault = || ServiceError::Internal {
        source: "an image does not have the bytes of its size".into(),
    };
    let before = image.size();
    let pixels =
        image::RgbImage::from_raw(before.width, before.height, image.into_pixels()).ok_or_else(fault)?;
    let resized = imageops::resize(&pixels, size.width, size.height, FilterType::Lanczos3);
    RgbImage::new(size, resized.into_raw()).ok_or_else(fault)
}

/// A PNG file of an image that no caller has sent in this form, made quickly.
pub(crate) fn to_file(image: &RgbImage) -> Result<Bytes, ServiceError> {
    let size = image.size();
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, PngFilter::Adaptive)
        .write_image(image.pixels(), size.width, size.height, ExtendedColorType::Rgb8)
        .map_err(|source| ServiceError::Internal {
            source: Box::new(source),
        })?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InputLimits;
    use crate::image_codec::decode;

    const LIMITS: InputLimits = InputLimits {
        max_side: 64,
        max_bytes: 1 << 20,
    };

    #[test]
    fn a_picture_is_brought_to_a_size_and_keeps_its_colours() {
        let before = Size {
            width: 40,
            height: 20,
        };
        // Left half dark, right half bright.
        let pixels = (0..20 * 40)
            .flat_map(|at| [if at % 40 < 20 { 30 } else { 220 }; 3])
            .collect();
        let picture = RgbImage::new(before, pixels).unwrap();
        for (width, height) in [(16, 16), (64, 48), (8, 64)] {
            let size = Size { width, height };
            let resized = resized(picture.clone(), size).unwrap();
            let found = decode(&to_file(&resized).unwrap(), LIMITS).unwrap();
            assert_eq!(found, resized);
            assert_eq!(found.size(), size);
            let line = &found.pixels()[..width as usize * 3];
            assert_eq!((line[0], line[line.len() - 1]), (30, 220), "{size}");
        }
    }
}
