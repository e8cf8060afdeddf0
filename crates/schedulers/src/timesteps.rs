//! Which timesteps a run visits: the three spacings of diffusers, and the way between timesteps and noise levels.
//!
//! All lists fall from noise to image. The arithmetic is NumPy's, in f64, rounded to f32 where diffusers stores f32.

use crate::config::TimestepSpacing;

/// diffusers' pipelines set `steps_offset` to 1 on every scheduler that knows the key.
pub(crate) const STEPS_OFFSET: f64 = 1.0;

/// Whether evenly spaced timesteps are whole numbers: those classes look ᾱ up, the others interpolate sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Whole,
    None,
}

/// `steps` timesteps as the DDPM and Euler families space them.
pub(crate) fn spaced(spacing: TimestepSpacing, train: usize, steps: usize, rounding: Rounding) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => {
            let even = linspace(0.0, count(train) - 1.0, steps);
            let rounded = |t: f64| match rounding {
                Rounding::Whole => t.round_ties_even(),
                Rounding::None => to_f32(t),
            };
            even.into_iter().rev().map(rounded).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = train / steps;
            (0..steps)
                .rev()
                .map(|i| count(i * ratio) + STEPS_OFFSET)
                .collect()
        }
        TimestepSpacing::Trailing => trailing(count(train), count(train) / count(steps)),
    }
}

/// `steps` timesteps as the DPM-Solver family spaces them: one more is laid out and the last, 0, left out.
/// `end` is the number of timesteps that may be used, all unless `lambda_min_clipped` is set.
pub(crate) fn spaced_without_last(
    spacing: TimestepSpacing,
    train: usize,
    end: usize,
    steps: usize,
) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => {
            let even = linspace(0.0, count(end) - 1.0, steps + 1);
            even.into_iter().skip(1).rev().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = end / (steps + 1);
            (1..=steps)
                .rev()
                .map(|i| count(i * ratio) + STEPS_OFFSET)
                .collect()
        }
        TimestepSpacing::Trailing => trailing(count(end), count(train) / count(steps)),
    }
}

/// `np.arange(end, 0, -ratio).round() - 1`, with NumPy's way of counting and filling.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of steps"
)]
fn trailing(end: f64, ratio: f64) -> Vec<f64> {
    let length = (end / ratio).ceil() as usize;
    let delta = (end - ratio) - end;
    let at = |i: usize| (count(i) * delta + end).round_ties_even() - 1.0;
    // Rounding can make one value too many, below the first timestep.
    (0..length).map(at).filter(|t| *t >= 0.0).collect()
}

/// `np.linspace` in f64: the last value is exactly `end`.
pub(crate) fn linspace(start: f64, end: f64, number: usize) -> Vec<f64> {
    let step = (end - start) / count(number.saturating_sub(1));
    let at = |i: usize| match i {
        0 => start,
        _ if i + 1 == number => end,
        _ => count(i) * step + start,
    };
    (0..number).map(at).collect()
}

/// `np.interp` over the sigmas of all timesteps, held at the ends.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of indices first"
)]
pub(crate) fn sigma_at(timestep: f64, sigmas: &[f64]) -> f64 {
    let last = sigmas.len() - 1;
    let below = (timestep.clamp(0.0, count(last))) as usize;
    let above = (below + 1).min(last);
    let fraction = (timestep - count(below)).clamp(0.0, 1.0);
    (sigmas[above] - sigmas[below]) * fraction + sigmas[below]
}

/// `_sigma_to_t`: the timestep with that noise, interpolated in the logarithm.
pub(crate) fn timestep_of(sigma: f64, log_sigmas: &[f64]) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = log_sigmas.partition_point(|l| *l <= log).saturating_sub(1);
    let below = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[below], log_sigmas[below + 1]);
    let fraction = ((low - log) / (low - high)).clamp(0.0, 1.0);
    (1.0 - fraction) * count(below) + fraction * count(below + 1)
}

/// Logarithms of the sigmas of all timesteps, f32 as in diffusers.
pub(crate) fn log_sigmas(sigmas: &[f64]) -> Vec<f64> {
    sigmas.iter().map(|s| to_f32(s.ln())).collect()
}

/// Rounds to f32 and back, where diffusers stores f32.
#[expect(clippy::cast_possible_truncation, reason = "the rounding is the purpose")]
pub(crate) fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of steps are far below 2^52")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}
