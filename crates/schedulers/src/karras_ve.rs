//! The stochastic sampler of Karras et al. 2022, arXiv 2206.00364, algorithm 2, for img2img: before each step noise is
//! raised ("churn"), then a Heun step goes down to the next level.
//!
//! Upstream, `schedulers/deprecated/scheduling_karras_ve.py` of diffusers 0.42, samples unconditional pixel models. Our
//! definition is `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its constants on the checkpoint's own
//! noise levels. Evaluation 2k is at the raised level of step k, 2k + 1 corrects it at the next level.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise::NoiseSource;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::timesteps::{count, timestep_of, to_f32};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

/// `s_churn`: how much noise a whole run raises.
const CHURN: f64 = 80.0;
/// `s_noise`: the raised noise is a little larger than the level, against loss of detail.
const NOISE: f64 = 1.007;
/// `s_min` and `s_max`: levels outside are not raised.
const RAISED: std::ops::RangeInclusive<f64> = 0.05..=50.0;

#[derive(Debug)]
struct KarrasVe {
    /// One per step and the end.
    sigmas: Vec<f64>,
    /// The raised level of each step.
    raised: Vec<f64>,
    prediction: PredictionType,
    /// Latents and derivative at the raised level, between the two stages of a step.
    first_stage: Option<(Latents, Latents)>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let gamma = (CHURN / count(setup.steps())).min(2.0_f64.sqrt() - 1.0);
    let largest = steps.sigmas[0];
    // The model was not trained above its largest level.
    let raise = |s: &f64| match RAISED.contains(s) {
        true => (s * (1.0 + gamma)).min(largest),
        false => *s,
    };
    let raised: Vec<f64> = steps.sigmas[..steps.timesteps.len()].iter().map(raise).collect();
    let mut timesteps = Vec::with_capacity(2 * raised.len() - 1);
    for (step, level) in raised.iter().enumerate() {
        if step > 0 {
            timesteps.push(steps.timesteps[step]);
        }
        timesteps.push(if *level > steps.sigmas[step] {
            to_f32(timestep_of(*level, &steps.log_sigmas))
        } else {
            steps.timesteps[step]
        });
    }
    let rule = KarrasVe {
        sigmas: steps.sigmas,
        raised,
        prediction: PredictionType::of(setup.config)?,
        first_stage: None,
    };
    Ok(Schedule {
        timesteps,
        begin_index: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

impl KarrasVe {
    /// Raises the noise of the latents for a step. Draws even where nothing is raised, as upstream does.
    fn churn(&self, step: usize, sample: &Latents, noise: &Latents) -> Latents {
        let (sigma, raised) = (self.sigmas[step], self.raised[step]);
        let added = (raised * raised - sigma * sigma).max(0.0).sqrt();
        weighted_sum(&[(1.0, sample), (NOISE * added, noise)])
    }
}

impl UpdateRule for KarrasVe {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let sigma = self.sigmas[index.div_ceil(2)];
        Ok(noised_by_sigma(sigma, init_latents, noise))
    }

    fn prepare_latents(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
        noise_source: &mut NoiseSource,
    ) -> Result<Latents, SchedulerError> {
        let latents = self.add_noise(index, init_latents, noise)?;
        Ok(self.churn(index / 2, &latents, &noise_source.normal(latents.shape())))
    }

    /// Before the first stage of a step the latents stand at its raised level.
    fn noised_init(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Option<Latents>, SchedulerError> {
        let sigma = if index.is_multiple_of(2) {
            self.raised[index / 2]
        } else {
            self.sigmas[index.div_ceil(2)]
        };
        Ok(Some(noised_by_sigma(sigma, init_latents, noise)))
    }

    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        let sigma = if index.is_multiple_of(2) {
            self.raised[index / 2]
        } else {
            self.sigmas[index / 2 + 1]
        };
        scaled_by_sigma(sample, sigma)
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let step = index / 2;
        let (raised, next) = (self.raised[step], self.sigmas[step + 1]);
        let dt = next - raised;
        if let Some((start, first)) = self.first_stage.take() {
            let second = self
                .prediction
                .derivative(inputs.model_output, inputs.sample, next);
            let latents = weighted_sum(&[(1.0, &start), (dt / 2.0, &first), (dt / 2.0, &second)]);
            return Ok(self.churn(step + 1, &latents, &inputs.draw_noise()));
        }
        let derivative = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, raised);
        let predicted = weighted_sum(&[(1.0, inputs.sample), (dt, &derivative)]);
        if next > 0.0 {
            self.first_stage = Some((inputs.sample.clone(), derivative));
        }
        Ok(predicted)
    }
}
