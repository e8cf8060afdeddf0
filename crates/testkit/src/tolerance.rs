//! The one table of tolerances between our tensors and diffusers', and the comparison that uses it.

use std::panic::Location;

use candle_core::{DType, Device, Result, Tensor};

use crate::record::record;

/// How far a full tensor may be from the reference: `max` anywhere, `mean` on average, both absolute,
/// relative to the reference's own largest magnitude where that exceeds 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Largest difference of any element.
    pub max: f64,
    /// Mean absolute difference.
    pub mean: f64,
}

impl Tolerance {
    /// Noise must be PyTorch's, bit for bit.
    pub const EXACT: Self = Self { max: 0.0, mean: 0.0 };
    /// Whole runs of a scheduler on an analytic model: f64 schedule, f32 tensors. Measured over 418 runs of all 18
    /// schedulers: at most 3.5e-6 and 5.7e-7 (KDPM2AncestralDiscrete), the others below 2e-6 and 3.5e-7.
    pub const SCHEDULER: Self = Self {
        max: 5e-6,
        mean: 8e-7,
    };
    /// The same where a zero-SNR run starts at sigma 4096: one unit in the last place of an f32 there is 4.9e-4, and it
    /// stays in latents of magnitude 10 (measured 5.7e-5 and 5.3e-6 with EulerDiscrete).
    pub const SCHEDULER_ZERO_SNR: Self = Self {
        max: 1e-4,
        mean: 1e-5,
    };
    /// Sinusoidal embeddings of timesteps and guidance scales. One frequency in fifty differs in its last bit (MKL's
    /// exp), which an angle of 19000 radians turns into 1e-3; the mean stays at 1.5e-6.
    pub const EMBEDDING: Self = Self {
        max: 2e-3,
        mean: 5e-6,
    };
    /// CLIP hidden states; 4.5e-7 and 7.3e-8 measured on the tiny encoder.
    pub const CLIP: Self = Self {
        max: 2e-6,
        mean: 3e-7,
    };
    /// The same, multiplied by the weights of a prompt and divided by a mean that may be near zero, which PyTorch sums in f32
    /// and we in f64; 6.7e-6 and 1.5e-6 measured on the tiny encoder.
    pub const WEIGHTED_CLIP: Self = Self {
        max: 2e-5,
        mean: 4e-6,
    };
    /// Tokens that an IP-Adapter makes of a picture, through the image encoder and, of one kind, a resampler of four layers;
    /// 6.1e-7 and 2.0e-7 measured over 37 sets of tokens.
    pub const IMAGE_TOKENS: Self = Self {
        max: 3e-6,
        mean: 8e-7,
    };
    /// CLIP image embeddings of the tiny safety checker, whose weights are large.
    pub const CLIP_EMBEDDING: Self = Self {
        max: 1e-5,
        mean: 2e-6,
    };
    /// A language model's logits, with weights larger than a trained one has.
    pub const LANGUAGE: Self = Self {
        max: 5e-5,
        mean: 5e-6,
    };
    /// One UNet forward; 1.4e-6 and 2.8e-7 measured on the tiny models, 7.3e-6 and 1.5e-6 with a guidance embedding.
    pub const UNET: Self = Self {
        max: 2e-5,
        mean: 4e-6,
    };
    /// A network in f16 against diffusers in f32; 2.6e-3 and 5.8e-4 measured over 20 results of all tiny networks on the
    /// emulated device.
    pub const HALF: Self = Self {
        max: 6e-3,
        mean: 1.2e-3,
    };
    /// Means of a few merged tokens, added in another order than in the reference; 1.2e-7 and 3.8e-9 measured.
    pub const TOKEN_MERGING: Self = Self {
        max: 5e-7,
        mean: 1e-8,
    };
    /// VAE moments and decoded pictures in -1..1; 1.1e-6 and 2.7e-7 measured on the tiny autoencoder.
    pub const VAE: Self = Self {
        max: 5e-6,
        mean: 1.1e-6,
    };
    /// What a LoRA adds to a weight, against the weight after PEFT's fusion less the one before, or the formula in PyTorch;
    /// 1.2e-7 and 5.5e-9 measured over 136 tensors of 24 files.
    pub const LORA: Self = Self {
        max: 5e-7,
        mean: 2e-8,
    };
    /// Latents along a whole run, where small differences of each evaluation add up.
    pub const TRAJECTORY: Self = Self {
        max: 5e-3,
        mean: 2e-4,
    };
    /// Probabilities of the embedded classifier.
    pub const CLASSIFIER: Self = Self {
        max: 1e-4,
        mean: 1e-4,
    };
    /// The features below them, means of ReLU6, after seventeen blocks in another order of sums.
    pub const CLASSIFIER_FEATURES: Self = Self {
        max: 1e-4,
        mean: 1e-5,
    };
    /// Enlarged pictures in 0..255, with weights that are rounded to f16.
    pub const ENLARGED: Self = Self { max: 0.5, mean: 0.05 };
    /// Final pictures in 0..255.
    pub const PICTURE: Self = Self { max: 2.0, mean: 0.1 };
    /// The same with networks in f16; 1 and 0.12 measured on a guided picture of the emulated device.
    pub const PICTURE_HALF: Self = Self { max: 4.0, mean: 0.4 };
    /// The same with linear layers and attention in bfloat16; 5 and 0.73 measured over the 15 golden runs, where diffusers in
    /// bf16 on the same weights, with the noise of f32, is up to 11 and 1.70 from itself in f32, and in each of them at least
    /// twice as far as we are on average.
    pub const PICTURE_BF16: Self = Self { max: 8.0, mean: 1.0 };
    /// The same by the tiles of AMX, where convolutions are rounded too: no further than diffusers in bf16 is.
    pub const PICTURE_BF16_TILES: Self = Self { max: 11.0, mean: 1.7 };
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference over the scale.
    pub max: f64,
    /// Mean absolute difference over the scale.
    pub mean: f64,
}

/// Compares two tensors of equal shape element by element. A NaN on either side counts as an infinite difference.
///
/// # Errors
/// When the shapes differ or candle fails.
pub fn compare(found: &Tensor, expected: &Tensor) -> Result<Difference> {
    if found.dims() != expected.dims() {
        candle_core::bail!("shape: found {:?}, expected {:?}", found.dims(), expected.dims());
    }
    let flat = |t: &Tensor| -> Result<Vec<f64>> {
        t.to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1::<f64>()
    };
    Ok(difference(&flat(found)?, &flat(expected)?))
}

/// Compares arrays of equal length, as [`compare`] does. `None` when the lengths differ.
#[must_use]
pub fn compare_values(found: &[f32], expected: &[f32]) -> Option<Difference> {
    if found.len() != expected.len() {
        return None;
    }
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().copied().map(f64::from).collect() };
    Some(difference(&wide(found), &wide(expected)))
}

fn difference(found: &[f64], expected: &[f64]) -> Difference {
    let scale = expected.iter().fold(1.0_f64, |m, x| m.max(x.abs()));
    // Pictures are compared in their own unit of 1/255 and are never rescaled.
    let scale = if scale > 64.0 { 1.0 } else { scale };
    let mut max = 0.0_f64;
    let mut sum = 0.0;
    for (a, b) in found.iter().zip(expected) {
        let d = (a - b).abs();
        let d = if d.is_nan() { f64::INFINITY } else { d };
        max = max.max(d);
        sum += d;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of elements is far below 2^52")]
    let mean = sum / expected.len().max(1) as f64;
    Difference {
        max: max / scale,
        mean: mean / scale,
    }
}

/// Panics with both numbers when `found` is not within `tolerance` of `expected`.
///
/// # Panics
/// When it is not, or when the shapes differ.
#[track_caller]
#[expect(clippy::panic, reason = "an assertion for tests")]
pub fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    match compare(found, expected) {
        Ok(difference) => assert_within(what, difference, tolerance),
        Err(error) => panic!("{what}: {error}"),
    }
}

/// As [`assert_close`], for arrays.
///
/// # Panics
/// As [`assert_close`].
#[track_caller]
#[expect(clippy::panic, reason = "an assertion for tests")]
pub fn assert_values_close(what: &str, found: &[f32], expected: &[f32], tolerance: Tolerance) {
    match compare_values(found, expected) {
        Some(difference) => assert_within(what, difference, tolerance),
        None => panic!("{what}: {} values instead of {}", found.len(), expected.len()),
    }
}

#[track_caller]
fn assert_within(what: &str, difference: Difference, tolerance: Tolerance) {
    record(
        Location::caller(),
        what,
        [difference.max, difference.mean],
        [tolerance.max, tolerance.mean],
    );
    assert!(
        difference.max <= tolerance.max && difference.mean <= tolerance.mean,
        "{what}: largest difference {:e} (allowed {:e}), mean {:e} (allowed {:e})",
        difference.max,
        tolerance.max,
        difference.mean,
        tolerance.mean,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_is_never_close() {
        let a = Tensor::new(&[f32::NAN, 0.0], &Device::Cpu).unwrap();
        let b = Tensor::new(&[0.0_f32, 0.0], &Device::Cpu).unwrap();
        assert_eq!(compare(&a, &b).unwrap().max, f64::INFINITY);
        assert!(compare(&a, &b.reshape((2, 1)).unwrap()).is_err());
        assert_eq!(
            compare_values(&[f32::NAN, 0.0], &[0.0, 0.0]).unwrap().max,
            f64::INFINITY
        );
        assert!(compare_values(&[0.0], &[0.0, 0.0]).is_none());
    }
}
