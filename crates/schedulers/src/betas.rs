//! The beta schedules that a checkpoint's configuration can name, in f32 as diffusers computes them.
//!
//! Upstream: `schedulers/scheduling_ddpm.py` of diffusers 0.42.

use std::f64::consts::FRAC_PI_2;

use crate::config::{SchedulerConfig, unknown};
use crate::error::SchedulerError;

/// The largest schedule that is taken from a file; published ones have 1000 steps.
const MOST_TRAINING_STEPS: usize = 100_000;

/// What a scheduler class of diffusers assumes where the file is silent, and which keys it knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BetaDefaults {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) schedule: &'static str,
    pub(crate) zero_snr: ZeroSnr,
}

/// What a class does with `rescale_betas_zero_snr` (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ZeroSnr {
    /// The class does not know the key.
    Ignored,
    /// The last level is pure noise.
    Exact,
    /// The last level is 2^-24 short of pure noise, so that its sigma is finite.
    Finite,
}

impl BetaDefaults {
    /// The defaults of most classes.
    pub(crate) const fn linear(zero_snr: ZeroSnr) -> Self {
        Self {
            start: 0.0001,
            end: 0.02,
            schedule: "linear",
            zero_snr,
        }
    }

    /// Heun and both KDPM2 classes.
    pub(crate) const K_DIFFUSION: Self = Self {
        start: 0.00085,
        end: 0.012,
        schedule: "linear",
        zero_snr: ZeroSnr::Ignored,
    };
}

/// The betas of the configuration, or of the class where it is silent.
pub(crate) fn betas(config: &SchedulerConfig, defaults: BetaDefaults) -> Result<Vec<f32>, SchedulerError> {
    #[expect(clippy::cast_possible_truncation, reason = "diffusers stores betas as f32")]
    if let Some(trained) = &config.trained_betas {
        check_length("trained_betas", trained.len())?;
        return Ok(trained.iter().map(|b| *b as f32).collect());
    }
    let count = config.num_train_timesteps.unwrap_or(1000);
    check_length("num_train_timesteps", count)?;
    let start = config.beta_start.unwrap_or(defaults.start);
    let end = config.beta_end.unwrap_or(defaults.end);
    match config.beta_schedule.as_deref().unwrap_or(defaults.schedule) {
        "linear" => Ok(linspace_f32(start, end, count)),
        "scaled_linear" => {
            let roots = linspace_f32(start.sqrt(), end.sqrt(), count);
            Ok(roots.iter().map(|r| r * r).collect())
        }
        "squaredcos_cap_v2" => Ok(from_alpha_bar(count, |t| {
            ((t + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
        })),
        "exp" => Ok(from_alpha_bar(count, |t| (-12.0 * t).exp())),
        "laplace" => Ok(from_alpha_bar(count, laplace_alpha_bar)),
        "sigmoid" => Ok(sigmoid(start, end, count)),
        other => Err(unknown("beta_schedule", other)),
    }
}

fn check_length(key: &'static str, count: usize) -> Result<(), SchedulerError> {
    if (2..=MOST_TRAINING_STEPS).contains(&count) {
        return Ok(());
    }
    Err(SchedulerError::Setting {
        key,
        problem: format!("{count} training timesteps are not between 2 and {MOST_TRAINING_STEPS}"),
    })
}

/// `torch.linspace` in f32: the step is rounded first, and the second half counts back from the end.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "f32 is what PyTorch computes in"
)]
fn linspace_f32(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| {
            if i < count / 2 {
                step.mul_add(i as f32, start)
            } else {
                (-step).mul_add((count - 1 - i) as f32, end)
            }
        })
        .collect()
}

/// `betas_for_alpha_bar`: the betas whose cumulative product follows a given function of time (Nichol & Dhariwal 2021,
/// arXiv 2102.09672, section 3.2), none above 0.999.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "diffusers computes each beta in f64 and stores an f32"
)]
fn from_alpha_bar(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count)
        .map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32)
        .collect()
}

fn laplace_alpha_bar(t: f64) -> f64 {
    let lambda = -0.5 * 1.0_f64.copysign(0.5 - t) * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln();
    let snr = lambda.exp();
    (snr / (1.0 + snr)).sqrt()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "PyTorch computes this schedule in f32"
)]
fn sigmoid(start: f64, end: f64, count: usize) -> Vec<f32> {
    let squash = |x: &f32| (1.0 / (1.0 + (-x).exp())) * (end - start) as f32 + start as f32;
    linspace_f32(-6.0, 6.0, count).iter().map(squash).collect()
}
