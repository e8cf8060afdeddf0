//! DEIS, log-ρ multistep: Zhang & Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator",
//! arXiv 2204.13902, section 3.4: the noise is a polynomial in log ρ, with ρ the noise-to-image ratio.
//!
//! Upstream: `schedulers/scheduling_deis_multistep.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::{TimestepSpacing, unknown};
use crate::dpm_solver::{refuse_flow, solver_order};
use crate::dpm_solver_multistep::SHORT_RUN;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::timesteps::spaced_without_last;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised};

#[derive(Debug)]
struct Deis {
    sigmas: Vec<f64>,
    order: usize,
    lower_order_final: bool,
    prediction: PredictionType,
    threshold: Option<Threshold>,
    /// Predicted noise of earlier evaluations, the latest last.
    model_outputs: Vec<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    refuse_flow(config)?;
    match config.solver_type.as_deref() {
        None | Some("logrho" | "midpoint" | "heun" | "bh1" | "bh2") => {}
        Some(other) => return Err(unknown("solver_type", other)),
    }
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Linspace)?;
    let timesteps = spaced_without_last(spacing, schedule.len(), schedule.len(), setup.steps());
    let respacing = Respacing::of(setup);
    let steps = SigmaSteps::solver_family(setup, &schedule, timesteps, respacing, None)?.whole(respacing);
    let rule = Deis {
        sigmas: steps.sigmas,
        order: solver_order(config)?,
        lower_order_final: config.lower_order_final.unwrap_or(true),
        prediction: PredictionType::of(config)?,
        threshold: Threshold::of(config)?,
        model_outputs: Vec::new(),
    };
    Ok(Schedule {
        timesteps: steps.timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

/// The integral from `from` to `to` over ρ of the Lagrange polynomial in log ρ that is 1 at `one` and 0 at `zeros`.
fn weight(from: f64, to: f64, one: f64, zeros: &[f64]) -> f64 {
    let antiderivative = |rho: f64| {
        let l = rho.ln();
        match zeros {
            [] => rho,
            [c] => rho * (l - c.ln() - 1.0) / (one.ln() - c.ln()),
            [c, d, ..] => {
                let (b, c, d) = (one.ln(), c.ln(), d.ln());
                rho * (c * (d - l + 1.0) - d * l + d + l * l - 2.0 * l + 2.0) / ((b - c) * (b - d))
            }
        }
    };
    antiderivative(to) - antiderivative(from)
}

impl Deis {
    /// Orders rise at the beginning of the run and fall at the end of short ones.
    fn order_at(&self, index: usize) -> usize {
        let steps = self.sigmas.len() - 1;
        let most = match steps - index {
            left @ (1 | 2) if self.lower_order_final && steps < SHORT_RUN => left,
            _ => 3,
        };
        most.min(self.order).min(self.model_outputs.len())
    }
}

impl UpdateRule for Deis {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let level = Level::of_sigma(self.sigmas[index]);
        Ok(noised(level, init_latents, noise))
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let here = Level::of_sigma(self.sigmas[index]);
        let there = Level::of_sigma(self.sigmas[index + 1]);
        let original_sample = self.prediction.original_sample(model_output, sample, here);
        let original_sample = Threshold::apply(self.threshold, original_sample);
        let epsilon = PredictionType::Sample.epsilon(&original_sample, sample, here);
        if self.model_outputs.len() == self.order {
            self.model_outputs.remove(0);
        }
        self.model_outputs.push(epsilon);

        // ρ is sigma: the ratio of noise to image.
        let order = self.order_at(index);
        let nodes: Vec<f64> = (0..order).map(|k| self.sigmas[index - k]).collect();
        let mut terms = vec![(there.alpha / here.alpha, sample)];
        for (k, output) in self.model_outputs.iter().rev().take(order).enumerate() {
            let zeros: Vec<f64> = (1..order).map(|j| nodes[(k + j) % order]).collect();
            let integral = weight(self.sigmas[index], self.sigmas[index + 1], nodes[k], &zeros);
            terms.push((there.alpha * integral, output));
        }
        Ok(weighted_sum(&terms))
    }
}
