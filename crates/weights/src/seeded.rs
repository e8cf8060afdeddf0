//! Random weights from a seed, cheap enough to fill the 860 million parameters of SD 1.5 in seconds.
//!
//! Only for tests and benches: a value depends on seed, tensor name and position, never on the order of questions.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

/// A backend that has a tensor of every name and shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeededWeights {
    seed: u64,
}

impl SeededWeights {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn values(self, name: &str, dims: &[usize]) -> Vec<f32> {
        let (offset, scale) = offset_and_scale(name, dims);
        // FNV-1a of the name, so that equal shapes under different names get different values.
        let start = name
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325 ^ self.seed, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
            });
        let count = dims.iter().product::<usize>() as u64;
        (0..count)
            .map(|i| offset + scale * near_normal(mix(start, i)))
            .collect()
    }
}

impl SimpleBackend for SeededWeights {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, dev: &Device) -> Result<Tensor> {
        Tensor::from_vec(self.values(name, s.dims()), s, dev)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("seeded weights have no shape of their own for `{name}`")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Mean and spread for a tensor of this name and shape.
fn offset_and_scale(name: &str, dims: &[usize]) -> (f32, f32) {
    match dims {
        [_, fan_in @ ..] if !fan_in.is_empty() => {
            if name.contains("embedding.weight") {
                return (0.0, 0.5);
            }
            #[expect(clippy::cast_precision_loss, reason = "a fan-in is far below 2^24")]
            let fan_in = fan_in.iter().product::<usize>().max(1) as f32;
            (0.0, fan_in.sqrt().recip())
        }
        _ if name.ends_with("weight") => (1.0, 0.1),
        _ => (0.0, 0.05),
    }
}

/// SplitMix64 at position `i` of the stream that begins at `start` (Steele, Lea and Flood, 2014).
fn mix(start: u64, i: u64) -> u64 {
    let z = start.wrapping_add(i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The sum of four uniform 16-bit numbers, centred and scaled to variance 1: close enough to normal for weights.
fn near_normal(bits: u64) -> f32 {
    let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
    #[expect(clippy::cast_precision_loss, reason = "the sum has 18 bits")]
    let centred = sum as f32 - 131_070.0;
    // Each addend has variance (2^32 - 1) / 12, so four have the square of 37837.2.
    centred / 37_837.2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_unit_gain_and_depend_on_name_and_seed() {
        let weights = SeededWeights::new(1).values("a.weight", &[64, 16, 3, 3]);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let n = weights.len() as f32;
        let mean = weights.iter().sum::<f32>() / n;
        let variance = weights.iter().map(|w| w * w).sum::<f32>() / n;
        assert!(
            mean.abs() < 0.01 && (variance * 144.0 - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
        assert_eq!(weights, SeededWeights::new(1).values("a.weight", &[64, 16, 3, 3]));
        assert_ne!(weights, SeededWeights::new(1).values("b.weight", &[64, 16, 3, 3]));
        assert_ne!(weights, SeededWeights::new(2).values("a.weight", &[64, 16, 3, 3]));
    }
}
