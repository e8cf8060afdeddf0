//! Linear multistep method of order 4 in sigma: the derivative is interpolated through earlier evaluations and the
//! interpolant integrated (Adams-Bashforth on uneven levels). Katherine Crowson's `sample_lms` of k-diffusion.
//!
//! Upstream: `schedulers/scheduling_lms_discrete.py` of diffusers 0.42, its behaviour in img2img included: the order
//! follows the position in the whole schedule, so a run that starts late uses the weights of order 4 while it has fewer
//! derivatives, and leaves the missing ones out.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

const ORDER: usize = 4;

#[derive(Debug)]
struct Lms {
    sigmas: Vec<f64>,
    prediction: PredictionType,
    /// The latest first.
    derivatives: Vec<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let rule = Lms {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
        derivatives: Vec::with_capacity(ORDER),
    };
    Ok(Schedule {
        timesteps: steps.timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

impl Lms {
    /// The integral over the step of the Lagrange polynomial that is 1 at the `which`-latest level and 0 at the others.
    fn weight(&self, index: usize, order: usize, which: usize) -> f64 {
        let nodes = &self.sigmas[index + 1 - order..=index];
        let node = |k: usize| nodes[order - 1 - k];
        let polynomial = |tau: f64| {
            (0..order)
                .filter(|k| *k != which)
                .map(|k| (tau - node(k)) / (node(which) - node(k)))
                .product::<f64>()
        };
        let (from, to) = (self.sigmas[index], self.sigmas[index + 1]);
        // Two-point Gauss-Legendre is exact up to degree 3.
        let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
        let offset = half / 3.0_f64.sqrt();
        half * (polynomial(middle - offset) + polynomial(middle + offset))
    }
}

impl UpdateRule for Lms {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        Ok(noised_by_sigma(self.sigmas[index], init_latents, noise))
    }

    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        scaled_by_sigma(sample, self.sigmas[index])
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let sigma = self.sigmas[index];
        let derivative = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, sigma);
        self.derivatives.insert(0, derivative);
        self.derivatives.truncate(ORDER);
        let order = ORDER.min(index + 1);
        let mut terms = vec![(1.0, inputs.sample)];
        for (which, derivative) in self.derivatives.iter().take(order).enumerate() {
            terms.push((self.weight(index, order, which), derivative));
        }
        Ok(weighted_sum(&terms))
    }
}
