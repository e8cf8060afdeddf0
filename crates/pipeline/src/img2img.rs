//! Between pixels and the VAE's input: padding to whole latents, cropping back, and the range -1..1.
//!
//! diffusers (`image_processor.py`, `VaeImageProcessor`) shrinks an image whose sides are no multiple of 8;
//! we repeat its last column and line instead and crop them off again, so the result keeps the input's size.
//! For multiples of 8 the two are the same.

use candle_core::{DType, Device, Result, Tensor};
use pentimento_types::{RgbImage, Size};

/// An image as the VAE takes it: three planes in -1..1, on the host.
#[derive(Debug)]
pub(crate) struct Planes {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Plane by plane, line by line.
    pub(crate) values: Vec<f32>,
}

impl Planes {
    /// Middle grey everywhere.
    pub(crate) fn grey(size: Size) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        Self {
            width,
            height,
            values: vec![0.0; 3 * width * height],
        }
    }

    /// `(1, 3, H, W)`
    pub(crate) fn into_tensor(self) -> Result<Tensor> {
        Tensor::from_vec(self.values, (1, 3, self.height, self.width), &Device::Cpu)
    }
}

/// The image in the VAE's range, its sides rounded up to multiples of `step`.
pub(crate) fn to_planes(image: &RgbImage, step: u32) -> Planes {
    let size = image.size();
    let padded = size.padded_to(step);
    let (w, h) = (size.width as usize, size.height as usize);
    let (padded_w, padded_h) = (padded.width as usize, padded.height as usize);
    let pixels = image.pixels();
    let mut planes = vec![0_f32; 3 * padded_w * padded_h];
    for (channel, plane) in planes.chunks_exact_mut(padded_w * padded_h).enumerate() {
        for (y, line) in plane.chunks_exact_mut(padded_w).enumerate() {
            let source = &pixels[y.min(h - 1) * w * 3..][..w * 3];
            for (x, value) in line.iter_mut().enumerate() {
                *value = 2.0 * (f32::from(source[x.min(w - 1) * 3 + channel]) / 255.0) - 1.0;
            }
        }
    }
    Planes {
        width: padded_w,
        height: padded_h,
        values: planes,
    }
}

/// The decoded `(1, 3, H, W)` tensor as an image of `size`, which cuts off what `to_planes` had added.
///
/// Rounds to the nearest of 256 levels, ties to even, as `numpy.round` does in diffusers.
/// Returns None when a value is NaN or infinite.
pub(crate) fn to_image(decoded: &Tensor, size: Size) -> Result<Option<RgbImage>> {
    let decoded = decoded.squeeze(0)?.to_dtype(DType::F32)?;
    let (_, padded_h, padded_w) = decoded.dims3()?;
    let planes = decoded.flatten_all()?.to_vec1::<f32>()?;
    if planes.iter().any(|value| !value.is_finite()) {
        return Ok(None);
    }
    let (w, h) = (size.width as usize, size.height as usize);
    let mut pixels = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        for x in 0..w {
            for channel in 0..3 {
                let value = planes[(channel * padded_h + y) * padded_w + x];
                pixels.push(to_level(value));
            }
        }
    }
    Ok(RgbImage::new(size, pixels))
}

/// A value in -1..1 as one of 256 levels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255 before the cast"
)]
pub(crate) fn to_level(value: f32) -> u8 {
    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_size_comes_back_pixel_for_pixel() {
        for (width, height) in [(1, 1), (7, 9), (8, 8), (67, 45)] {
            let size = Size { width, height };
            let pixels = (0..size.pixels() * 3)
                .map(|i| u8::try_from(i * 37 % 256).unwrap())
                .collect();
            let image = RgbImage::new(size, pixels).unwrap();
            let planes = to_planes(&image, 8);
            let padded = size.padded_to(8);
            assert_eq!(
                [planes.width, planes.height],
                [padded.width as usize, padded.height as usize]
            );
            let tensor = planes.into_tensor().unwrap();
            assert_eq!(to_image(&tensor, size).unwrap(), Some(image));
        }
    }

    #[test]
    fn a_nan_is_no_image() {
        let tensor = Tensor::full(f32::NAN, (1, 3, 8, 8), &Device::Cpu).unwrap();
        assert_eq!(to_image(&tensor, Size { width: 8, height: 8 }).unwrap(), None);
    }
}
