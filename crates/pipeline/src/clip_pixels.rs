//! A picture as CLIP's image encoder takes it: transformers' `CLIPImageProcessor` on Pillow.
//!
//! The shorter side is brought to the encoder's by Pillow's bicubic filter, which rounds to 8 bits between its two passes, and
//! the middle of the longer one is cut out. Newer versions of transformers resize with torchvision, whose numbers are others.

use candle_core::{Device, Result, Tensor};
use pentimento_types::{RgbImage, Size};

use crate::resample::{Filter, Part, resampled_part};

/// Of each channel in 0..1, over the pictures that CLIP was trained on (`OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD`).
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const SPREAD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// `(1, 3, side, side)`, f32.
pub(crate) fn clip_pixels(image: &RgbImage, side: u32) -> Result<Tensor> {
    let Size { width, height } = image.size();
    // In integers, where the reference's division of floats is exact enough to be cut at the same place.
    let longer = |long: u32, short: u32| u32::try_from(u64::from(side) * u64::from(long) / u64::from(short));
    let size = if width <= height {
        longer(height, width).map(|height| Size { width: side, height })
    } else {
        longer(width, height).map(|width| Size { width, height: side })
    };
    // Sides are below 2^24 and pictures' below 2^8.
    let size = size.map_err(candle_core::Error::wrap)?;
    let middle = |length: u32| {
        let first = (length - side) / 2;
        first..first + side
    };
    let part = Part {
        columns: middle(size.width),
        lines: middle(size.height),
    };
    let cut = resampled_part(image, (size, Filter::Bicubic), &part);
    let count = side as usize * side as usize;
    let mut planes = vec![0.0; 3 * count];
    for (channel, plane) in planes.chunks_exact_mut(count).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(cut.pixels().chunks_exact(3)) {
            *value = (to_unit(pixel[channel]) - MEAN[channel]) / SPREAD[channel];
        }
    }
    let side = side as usize;
    Tensor::from_vec(planes, (1, 3, side, side), &Device::Cpu)
}

/// As numpy has it: a product in f64, rounded.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
fn to_unit(level: u8) -> f32 {
    (f64::from(level) * (1.0 / 255.0)) as f32
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::{Golden, Tolerance, assert_close};

    use super::*;

    fn image_of(golden: &Golden, name: &str) -> RgbImage {
        let tensor = golden.tensor(name);
        let (height, width, _) = tensor.dims3().unwrap();
        let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap());
        let pixels = tensor.flatten_all().unwrap().to_vec1().unwrap();
        RgbImage::new(Size { width, height }, pixels).unwrap()
    }

    #[test]
    fn pictures_are_prepared_as_by_transformers_on_pillow() {
        let golden = Golden::open("ip_adapter/pictures.safetensors");
        let names = golden.names();
        let cases = names.iter().filter_map(|name| name.strip_suffix(".before"));
        let mut count = 0;
        for case in cases {
            let side = case.rsplit('-').next().unwrap().parse().unwrap();
            let image = image_of(&golden, &format!("{case}.before"));
            let found = clip_pixels(&image, side).unwrap().squeeze(0).unwrap();
            let expected = golden.tensor(&format!("{case}.after"));
            // Of the large one the file has a plane.
            let found = found.narrow(0, 0, expected.dim(0).unwrap()).unwrap();
            assert_close(case, &found, expected, Tolerance::EXACT);
            count += 1;
        }
        assert_eq!(count, 10);
    }

    /// What is cut away is not made: a line of a million pixels would become 150 million otherwise.
    #[test]
    fn the_longest_line_costs_what_its_middle_does() {
        for (width, height) in [(1_000_000, 1), (1, 1_000_000)] {
            let size = Size { width, height };
            let image = RgbImage::new(size, vec![200; 3_000_000]).unwrap();
            let found = clip_pixels(&image, 224).unwrap();
            assert_eq!(found.dims(), [1, 3, 224, 224]);
        }
    }
}
