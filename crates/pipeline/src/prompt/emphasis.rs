//! What weights do to the states of a chunk: each token's are multiplied, and the whole gets back the mean that it had.
//!
//! As A1111's `EmphasisOriginal` (`modules/sd_emphasis.py`), which it applies by default: to the states of one chunk of one
//! text encoder at a time, after the encoder's last norm. The pooled state is left alone.

use candle_core::{DType, Device, Result, Tensor};

/// The states (1, T, D) of a chunk, multiplied by the weights of its T tokens.
///
/// Where multiplying leaves a mean that is no use as a divisor, the states keep what multiplying made of them.
pub(crate) fn weighted(states: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let (_, tokens, width) = states.dims3()?;
    // Some ten thousand numbers, in main memory: the sums are the same ones on every device.
    let mut values = states.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let before = mean(&values);
    for (token, weight) in values.chunks_exact_mut(width).zip(weights) {
        token.iter_mut().for_each(|value| *value *= weight);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the states are f32")]
    let back = (before / mean(&values)) as f32;
    if back.is_finite() {
        values.iter_mut().for_each(|value| *value *= back);
    }
    Tensor::from_vec(values, (1, tokens, width), &Device::Cpu)
}

#[expect(clippy::cast_precision_loss, reason = "a count of elements is far below 2^52")]
fn mean(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[f32], weights: &[f32]) -> Vec<f32> {
        let shape = (1, weights.len(), values.len() / weights.len());
        let states = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let found = weighted(&states, weights).unwrap();
        found.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_mean_stays() {
        assert_eq!(run(&[1.0, 3.0, 2.0, 2.0], &[1.0, 3.0]), [0.5, 1.5, 3.0, 3.0]);
        assert_eq!(run(&[1.0, 3.0], &[1.0]), [1.0, 3.0]);
    }

    #[test]
    fn a_mean_of_nothing_is_no_divisor() {
        assert_eq!(run(&[1.0, 1.0, 2.0, 2.0], &[2.0, -1.0]), [2.0, 2.0, -2.0, -2.0]);
        assert_eq!(run(&[1.0, 2.0], &[0.0]), [0.0, 0.0]);
    }
}
