//! The checkpoint's noise schedule: betas, their cumulative product, and the noise levels that follow from it.
//!
//! diffusers computes these in f32, and their rounding shows in the images, so every value here is an f32 computed in
//! the same order; everything after that is f64. Upstream: `schedulers/scheduling_ddpm.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr, betas};
use crate::config::SchedulerConfig;
use crate::error::SchedulerError;
use crate::prediction::PredictionType;
use crate::run::Setup;

/// A smaller share of the image cannot be calculated with in f32; published schedules end near 5e-3.
const LEAST_ALPHA_BAR: f32 = 1e-20;

/// How much of the image is left at each training timestep.
#[derive(Clone, Debug)]
pub(crate) struct NoiseSchedule {
    /// ᾱ of each timestep, falling from nearly 1 to nearly 0.
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// The schedule that a class with these defaults reads from the checkpoint's configuration.
    pub(crate) fn new(config: &SchedulerConfig, defaults: BetaDefaults) -> Result<Self, SchedulerError> {
        let mut betas = betas(config, defaults)?;
        let rescale = config.rescale_betas_zero_snr.unwrap_or(false) && defaults.zero_snr != ZeroSnr::Ignored;
        if rescale {
            rescale_zero_terminal_snr(&mut betas);
        }
        let mut alphas_cumprod = cumulative_product(&betas);
        if rescale && defaults.zero_snr == ZeroSnr::Finite {
            let last = alphas_cumprod.len() - 1;
            alphas_cumprod[last] = 2.0_f32.powi(-24);
        }
        let end = alphas_cumprod.len() - usize::from(rescale);
        let usable = |a: &f32| (LEAST_ALPHA_BAR..=1.0).contains(a);
        if !alphas_cumprod[..end].iter().all(usable) {
            return Err(SchedulerError::Setting {
                key: "beta_start",
                problem: "the betas must lie between 0 and 1 and leave something of the picture".to_owned(),
            });
        }
        Ok(Self { alphas_cumprod })
    }

    /// The schedule for a run, which cannot have more steps than there are training timesteps.
    pub(crate) fn for_run(setup: &Setup<'_>, defaults: BetaDefaults) -> Result<Self, SchedulerError> {
        let schedule = Self::new(setup.config, defaults)?;
        if setup.steps() > schedule.len() {
            return Err(too_many_steps(setup.steps(), schedule.len()));
        }
        Ok(schedule)
    }

    /// How many training timesteps there are.
    pub(crate) fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// ᾱ of a whole timestep.
    pub(crate) fn alpha_bar(&self, timestep: f64) -> Result<f64, SchedulerError> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be a whole number in range"
        )]
        let index = (timestep >= 0.0 && timestep.fract() == 0.0).then_some(timestep as usize);
        index
            .and_then(|i| self.alphas_cumprod.get(i))
            .map(|a| f64::from(*a))
            .ok_or_else(|| SchedulerError::Run {
                name: "steps",
                problem: format!("the schedule would need timestep {timestep} of {}", self.len()),
            })
    }

    /// Refuses to predict noise from pure noise, where the predicted image would be 0 / 0.
    pub(crate) fn check_finite(
        &self,
        timestep: f64,
        prediction: PredictionType,
    ) -> Result<(), SchedulerError> {
        if self.alpha_bar(timestep)? > 0.0 || prediction != PredictionType::Epsilon {
            return Ok(());
        }
        Err(SchedulerError::Setting {
            key: "rescale_betas_zero_snr",
            problem: "a model that predicts noise cannot start from pure noise".to_owned(),
        })
    }

    /// ᾱ of the first timestep, the smallest noise that the model was trained on.
    pub(crate) fn first_alpha_bar(&self) -> f64 {
        f64::from(self.alphas_cumprod[0])
    }

    /// sqrt((1 - ᾱ) / ᾱ) of every timestep, rising.
    pub(crate) fn sigmas(&self) -> Vec<f64> {
        let sigma = |a: &f32| f64::from(((1.0 - a) / a).sqrt());
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    /// λ of every timestep in f32, falling.
    pub(crate) fn lambdas(&self) -> Vec<f64> {
        let lambda = |a: &f32| f64::from(a.sqrt().ln() - (1.0 - a).sqrt().ln());
        self.alphas_cumprod.iter().map(lambda).collect()
    }
}

/// The error for a run that is finer than its schedule.
pub(crate) fn too_many_steps(steps: usize, train: usize) -> SchedulerError {
    SchedulerError::Run {
        name: "steps",
        problem: format!("{steps} is too many for a model with {train} training timesteps"),
    }
}

/// `torch.cumprod(1 - betas)`, which accumulates in f64 and stores f32.
#[expect(clippy::cast_possible_truncation, reason = "the stored product is an f32")]
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    let multiply = |beta: &f32| {
        product *= f64::from(1.0 - beta);
        product as f32
    };
    betas.iter().map(multiply).collect()
}

/// Shifts and scales the square roots of ᾱ so that the last one is 0 and the first one stays.
fn rescale_zero_terminal_snr(betas: &mut [f32]) {
    let mut roots: Vec<f32> = cumulative_product(betas).iter().map(|a| a.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    for root in &mut roots {
        *root = (*root - last) * scale;
    }
    let alpha_bars: Vec<f32> = roots.iter().map(|r| r * r).collect();
    betas[0] = 1.0 - alpha_bars[0];
    for (beta, pair) in betas[1..].iter_mut().zip(alpha_bars.windows(2)) {
        *beta = 1.0 - pair[1] / pair[0];
    }
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::Golden;

    use super::*;

    /// `<case>` is `alphas_cumprod` of diffusers' DDPMScheduler with the configuration in `about.cases`.
    #[test]
    fn alphas_cumprod_has_diffusers_rounding() {
        let golden = Golden::open("schedulers/alphas_cumprod.safetensors");
        let cases = golden.about()["cases"].as_object().unwrap().clone();
        assert!(cases.len() >= 7);
        for (name, config) in cases {
            let config: SchedulerConfig = serde_json::from_value(config).unwrap();
            let found = NoiseSchedule::new(&config, BetaDefaults::linear(ZeroSnr::Exact)).unwrap();
            let expected = golden.values::<f32>(&name);
            assert_eq!(found.len(), expected.len(), "{name}");
            let worst = found
                .alphas_cumprod
                .iter()
                .zip(&expected)
                .map(|(a, b)| ((a - b) / b.max(1e-12)).abs())
                .fold(0.0, f32::max);
            // The usual schedules are equal in every bit. The others pass through functions that PyTorch takes from
            // Intel's library, whose last bit differs, and the zero-SNR rescaling magnifies it in the last levels.
            let allowed = match name.as_str() {
                "linear" | "scaled_linear" | "trained" => 0.0,
                "zero_snr" => 1e-5,
                _ => 4e-7,
            };
            assert!(worst <= allowed, "{name}: {worst:e}");
        }
    }

    #[test]
    fn impossible_betas_are_refused() {
        for text in [
            r#"{"beta_schedule": "nonsense"}"#,
            r#"{"num_train_timesteps": 0}"#,
            r#"{"num_train_timesteps": 99999999}"#,
            r#"{"trained_betas": []}"#,
            r#"{"beta_start": 2.0, "beta_end": 3.0}"#,
            r#"{"beta_start": -2.0}"#,
        ] {
            let config = SchedulerConfig::from_json(text.as_bytes()).unwrap();
            let result = NoiseSchedule::new(&config, BetaDefaults::linear(ZeroSnr::Exact));
            assert!(matches!(result, Err(SchedulerError::Setting { .. })), "{text}");
        }
    }
}
