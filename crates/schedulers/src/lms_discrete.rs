//! Linear multistep method of order 4 in sigma: the derivative is interpolated through earlier evaluations and the
//! interpolant integrated (Adams-Bashforth on uneven levels). Katherine Crowson's `sample_lms` of k-diffusion.
//!
//! Upstream: `schedulers/scheduling_lms_discrete.py` of diffusers 0.42, its behaviour in img2img included: the order
//! follows the position in the whole schedule, so a run that starts late uses the weights of order 4 while it has fewer
//! derivatives, and leaves the missing ones out.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::prediction::{PredictionType, scaled_input, weighted_sum};
use crate::schedule::{BetaDefaults, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::{Respacing, SigmaSteps};

const ORDER: usize = 4;

#[derive(Debug)]
struct Lms {
    sigmas: Vec<f64>,
    prediction: PredictionType,
    /// The latest first.
    derivatives: Vec<Tensor>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let rule = Lms {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
        derivatives: Vec::with_capacity(ORDER),
    };
    Ok(Planned {
        timesteps: steps.timesteps,
        skipped: setup.first_step(),
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
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[(1.0, clean), (self.sigmas[index], noise)])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(scaled_input(latents, self.sigmas[index])?)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let sigma = self.sigmas[index];
        let derivative = self
            .prediction
            .derivative(given.prediction, given.latents, sigma)?;
        self.derivatives.insert(0, derivative);
        self.derivatives.truncate(ORDER);
        let order = ORDER.min(index + 1);
        let mut terms = vec![(1.0, given.latents)];
        for (which, derivative) in self.derivatives.iter().take(order).enumerate() {
            terms.push((self.weight(index, order, which), derivative));
        }
        Ok(weighted_sum(&terms)?)
    }
}
