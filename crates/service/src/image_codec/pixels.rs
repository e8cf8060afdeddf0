//! Decoded pixels as a file holds them, and the two readings of them: as an image and as a mask.

use image::DynamicImage;
use image::metadata::Orientation;
use pentimento_types::{RgbImage, Size};

use super::refusal::undecodable;
use crate::ServiceError;

/// From this level on a mask repaints, as in diffusers.
const REPAINTED_FROM: u8 = 128;

/// The pixels of a file, 8 bits per sample, lying as they are stored.
pub(super) struct Pixels {
    pub(super) size: Size,
    /// 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) bytes per pixel.
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
    /// How they are turned upright.
    pub(super) orientation: Orientation,
}

/// What of a mask is repainted. It is the dialect's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskReading {
    /// White; or where the colours have no shape and the alpha channel has one, what is opaque.
    #[default]
    White,
    /// What is transparent, whatever its colour.
    Transparent,
}

/// A mask as it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedMask {
    /// White is repainted.
    pub image: RgbImage,
    /// Whether it is the file's alpha channel, since its colours have no shape.
    pub is_alpha: bool,
}

impl Pixels {
    /// Upright, without the alpha channel.
    pub(super) fn into_image(self) -> Result<RgbImage, ServiceError> {
        let rgb: Vec<u8> = match self.channels {
            1 | 2 => self
                .samples
                .chunks_exact(self.channels)
                .flat_map(|pixel| [pixel[0]; 3])
                .collect(),
            4 => {
                let (whole, _) = self.samples.as_chunks::<4>();
                whole.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect()
            }
            _ => self.samples,
        };
        upright(rgb, self.size, self.orientation)
    }

    /// Upright, on white where it is transparent; rounded as Pillow pastes.
    pub(super) fn into_image_on_white(mut self) -> Result<RgbImage, ServiceError> {
        let on_white = |level: u8, alpha: u8| {
            let (level, alpha) = (u32::from(level), u32::from(alpha));
            let sum = level * alpha + 255 * (255 - alpha) + 128;
            u8::try_from(((sum >> 8) + sum) >> 8).unwrap_or(u8::MAX)
        };
        if self.channels == 2 || self.channels == 4 {
            for pixel in self.samples.chunks_exact_mut(self.channels) {
                if let [colours @ .., alpha] = pixel {
                    for level in colours {
                        *level = on_white(*level, *alpha);
                    }
                }
            }
        }
        self.into_image()
    }

    /// Upright: where any of it is transparent, white where its alpha channel is above 128 and black elsewhere; else its
    /// colours.
    pub(super) fn into_drawn_mask(self) -> Result<RgbImage, ServiceError> {
        let is_drawn = self
            .alpha()
            .is_some_and(|mut alpha| alpha.any(|alpha| alpha < 255));
        if !is_drawn {
            return self.into_image();
        }
        let levels = self.alpha().into_iter().flatten();
        let levels = levels.flat_map(|alpha| [if alpha > 128 { 255 } else { 0 }; 3]);
        upright(levels.collect(), self.size, self.orientation)
    }

    /// The mask that is in the colours, or where these do not part the image and the alpha channel does, in that:
    /// opaque is repainted then.
    pub(super) fn into_mask(self) -> Result<DecodedMask, ServiceError> {
        let is_alpha = self.alpha().is_some_and(parts) && !parts(self.greys());
        let image = if is_alpha {
            let alpha = self.alpha().into_iter().flatten();
            upright(
                alpha.flat_map(|level| [level; 3]).collect(),
                self.size,
                self.orientation,
            )?
        } else {
            self.into_image()?
        };
        Ok(DecodedMask { image, is_alpha })
    }

    /// White where the file is transparent.
    pub(super) fn into_transparent_mask(self) -> Result<RgbImage, ServiceError> {
        let levels = || self.alpha().into_iter().flatten().map(|level| u8::MAX - level);
        if !levels().any(|level| level >= REPAINTED_FROM) {
            let problem = "has no transparent pixel; what is to change must be transparent in it".to_owned();
            return Err(ServiceError::MaskRefused { problem });
        }
        let rgb = levels().flat_map(|level| [level; 3]).collect();
        upright(rgb, self.size, self.orientation)
    }

    fn alpha(&self) -> Option<impl Iterator<Item = u8>> {
        let has_alpha = self.channels == 2 || self.channels == 4;
        has_alpha.then(|| {
            self.samples
                .chunks_exact(self.channels)
                .map(|pixel| pixel[self.channels - 1])
        })
    }

    fn greys(&self) -> impl Iterator<Item = u8> {
        self.samples.chunks_exact(self.channels).map(|pixel| match pixel {
            [r, g, b, ..] => grey([*r, *g, *b]),
            _ => pixel[0],
        })
    }
}

/// Whether a mask of these levels repaints something and keeps something.
fn parts(levels: impl Iterator<Item = u8>) -> bool {
    let mut repainted = levels.map(|level| level >= REPAINTED_FROM);
    let first = repainted.next();
    first.is_some_and(|first| repainted.any(|other| other != first))
}

/// Pillow's `convert("L")`: ITU-R 601 in 16-bit fixed point.
fn grey(rgb: [u8; 3]) -> u8 {
    let [r, g, b] = rgb.map(u32::from);
    u8::try_from((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).unwrap_or(u8::MAX)
}

fn upright(rgb: Vec<u8>, size: Size, orientation: Orientation) -> Result<RgbImage, ServiceError> {
    let damaged = || undecodable("the file does not hold as many pixels as it says");
    let rgb = image::RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(damaged)?;
    let mut image = DynamicImage::ImageRgb8(rgb);
    image.apply_orientation(orientation);
    let rgb = image.into_rgb8();
    let size = Size {
        width: rgb.width(),
        height: rgb.height(),
    };
    RgbImage::new(size, rgb.into_raw()).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of RGBA pixels.
    fn line(pixels: &[[u8; 4]]) -> Pixels {
        Pixels {
            size: Size {
                width: u32::try_from(pixels.len()).unwrap(),
                height: 1,
            },
            channels: 4,
            samples: pixels.concat(),
            orientation: Orientation::NoTransforms,
        }
    }

    fn levels(mask: &DecodedMask) -> Vec<u8> {
        let (pixels, _) = mask.image.pixels().as_chunks::<3>();
        pixels.iter().map(|pixel| grey(*pixel)).collect()
    }

    #[test]
    fn alpha_is_the_mask_where_only_it_has_a_shape() {
        // Black, white, and red strokes on an empty canvas; a white sheet with a hole.
        let cases: [[[u8; 4]; 3]; 4] = [
            [[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 77]],
            [[255, 255, 255, 0], [255, 255, 255, 255], [255, 255, 255, 77]],
            [[0, 0, 0, 0], [255, 0, 0, 255], [77, 0, 0, 77]],
            [[250, 255, 255, 0], [255, 255, 255, 255], [255, 250, 255, 77]],
        ];
        for pixels in cases {
            let mask = line(&pixels).into_mask().unwrap();
            assert!(mask.is_alpha, "{pixels:?}");
            assert_eq!(levels(&mask), [0, 255, 77], "{pixels:?}");
        }
    }

    #[test]
    fn colours_are_the_mask_where_they_have_a_shape_or_alpha_has_none() {
        let cases: [([[u8; 4]; 2], [u8; 2]); 4] = [
            ([[0, 0, 0, 0], [255, 255, 255, 255]], [0, 255]),
            ([[0, 0, 0, 255], [255, 255, 255, 0]], [0, 255]),
            ([[255, 255, 255, 255], [255, 255, 255, 128]], [255, 255]),
            ([[9, 9, 9, 127], [9, 9, 9, 0]], [9, 9]),
        ];
        for (pixels, expected) in cases {
            let mask = line(&pixels).into_mask().unwrap();
            assert!(!mask.is_alpha, "{pixels:?}");
            assert_eq!(levels(&mask), expected, "{pixels:?}");
        }
    }

    #[test]
    fn what_is_transparent_lies_on_white_and_is_what_a_drawn_mask_keeps() {
        let pixels = [
            [10, 20, 30, 255],
            [10, 20, 30, 0],
            [10, 20, 30, 128],
            [255, 255, 255, 129],
        ];
        let image = line(&pixels).into_image_on_white().unwrap();
        assert_eq!(
            image.pixels(),
            [10, 20, 30, 255, 255, 255, 132, 137, 142, 255, 255, 255]
        );
        let mask = line(&pixels).into_drawn_mask().unwrap();
        assert_eq!(mask.pixels(), [[255; 3], [0; 3], [0; 3], [255; 3]].concat());
        let opaque = line(&[[7, 7, 7, 255], [200, 200, 200, 255]])
            .into_drawn_mask()
            .unwrap();
        assert_eq!(opaque.pixels(), [7, 7, 7, 200, 200, 200]);
    }

    #[test]
    fn alpha_parts_at_every_level_as_a_mask_does() {
        for level in 0..=u8::MAX {
            let mask = line(&[[0, 0, 0, 0], [0, 0, 0, level]]).into_mask().unwrap();
            assert_eq!(mask.is_alpha, level >= 128, "{level}");
        }
    }

    #[test]
    fn what_is_transparent_is_repainted_whatever_its_colour_and_nothing_is_refused() {
        let mask = line(&[[255, 255, 255, 255], [9, 9, 9, 0], [255, 0, 0, 100]]);
        let image = mask.into_transparent_mask().unwrap();
        assert_eq!(image.pixels(), [0, 0, 0, 255, 255, 255, 155, 155, 155]);
        let opaque = line(&[[0, 0, 0, 255], [255, 255, 255, 128]]);
        let plain = Pixels {
            size: Size { width: 1, height: 1 },
            channels: 3,
            samples: vec![255; 3],
            orientation: Orientation::NoTransforms,
        };
        for mask in [opaque, plain] {
            let refused = mask.into_transparent_mask().unwrap_err();
            assert!(matches!(refused, ServiceError::MaskRefused { .. }), "{refused}");
        }
    }

    #[test]
    fn grey_with_alpha_is_read_and_turned_like_colours() {
        let pixels = Pixels {
            size: Size { width: 2, height: 1 },
            channels: 2,
            samples: vec![7, 200, 7, 0],
            orientation: Orientation::Rotate90,
        };
        let mask = pixels.into_mask().unwrap();
        assert!(mask.is_alpha);
        assert_eq!(mask.image.size(), Size { width: 1, height: 2 });
        assert_eq!(levels(&mask), [200, 0]);
    }
}
