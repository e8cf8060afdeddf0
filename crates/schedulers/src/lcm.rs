//! Latent consistency models: Luo et al. 2023, arXiv 2310.04378, algorithm 1 (multistep consistency sampling) with the
//! boundary condition of section 4.1.
//!
//! Upstream: `schedulers/scheduling_lcm.py` of diffusers 0.42, as both of its img2img pipelines run it:
//! `StableDiffusionImg2ImgPipeline` calls `set_timesteps` with the steps alone and takes the end of the list by strength,
//! `LatentConsistencyModelImg2ImgPipeline` gives the strength to `set_timesteps` and runs the whole list.

use pentimento_types::StrengthRule;

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;
use crate::timesteps::{count, linspace};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

/// The standard deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

const BETAS: BetaDefaults = BetaDefaults {
    start: 0.00085,
    end: 0.012,
    schedule: "scaled_linear",
    zero_snr: ZeroSnr::Exact,
};

#[derive(Debug)]
struct Lcm {
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    timestep_scaling: f64,
    prediction: PredictionType,
    threshold: Option<Threshold>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BETAS)?;
    let (strength, begin_index) = match setup.strength_rule {
        StrengthRule::FewerSteps | StrengthRule::OneStepMore => (1.0, setup.first_step()),
        // Of fixed timesteps upstream takes the end by either rule.
        StrengthRule::LowerStart if setup.fixed.is_some() => (1.0, setup.first_step()),
        StrengthRule::LowerStart => (setup.run.strength, 0),
    };
    let timesteps = timesteps(setup, schedule.len(), strength)?;
    let prediction = PredictionType::of(config)?;
    for timestep in timesteps.iter().skip(begin_index) {
        schedule.check_finite(*timestep, prediction)?;
    }
    let rule = Lcm {
        schedule,
        timesteps: timesteps.clone(),
        timestep_scaling: config.timestep_scaling.unwrap_or(10.0),
        prediction,
        threshold: Threshold::of(config)?,
    };
    Ok(Schedule {
        timesteps,
        begin_index,
        rule: Box::new(rule),
    })
}

/// The fixed timesteps, or evenly spaced members of the lowest `strength` of the distillation's own schedule of (by default) 50 timesteps.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into the distillation's schedule"
)]
pub(crate) fn timesteps(setup: &Setup<'_>, train: usize, strength: f64) -> Result<Vec<f64>, SchedulerError> {
    let (config, steps) = (setup.config, setup.steps());
    if setup.fixed.is_some() {
        return Ok(setup.timesteps_or(Vec::new));
    }
    let original = config.original_inference_steps.unwrap_or(50);
    if !(1..=train).contains(&original) {
        return Err(SchedulerError::Setting {
            key: "original_inference_steps",
            problem: format!("{original} is not between 1 and {train}"),
        });
    }
    if steps > original {
        return Err(SchedulerError::Run {
            name: "steps",
            problem: format!(
                "{steps} is more than the {original} steps that latent consistency models are distilled on"
            ),
        });
    }
    let skip = train / original;
    // Where the product is below 1, a caller who asked for some change gets the lowest timestep.
    let members = ((count(original) * strength) as usize).max(1);
    // Upstream refuses more steps than there are members.
    let steps = steps.min(members);
    let even = linspace(0.0, count(members), steps + 1);
    let member = |x: &f64| count((members - x.floor() as usize) * skip - 1);
    Ok(even[..steps].iter().map(member).collect())
}

impl UpdateRule for Lcm {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let timestep = self.timesteps[index];
        let here = Level::of_alpha_bar(self.schedule.alpha_bar(timestep)?);
        let original_sample = self
            .prediction
            .original_sample(inputs.model_output, inputs.sample, here);
        let original_sample = Threshold::apply(self.threshold, original_sample);

        let scaled = timestep * self.timestep_scaling;
        let square = scaled.mul_add(scaled, SIGMA_DATA * SIGMA_DATA);
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / square, scaled / square.sqrt());
        let denoised = weighted_sum(&[(out, &original_sample), (skip, inputs.sample)]);
        let Some(next) = self.timesteps.get(index + 1) else {
            return Ok(denoised);
        };
        let there = Level::of_alpha_bar(self.schedule.alpha_bar(*next)?);
        Ok(weighted_sum(&[
            (there.alpha, &denoised),
            (there.std, &inputs.draw_noise()),
        ]))
    }
}
