//! PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778: transfer of
//! equation 11, pseudo Runge-Kutta of equation 13, pseudo linear multistep of equation 12.
//!
//! Upstream: `schedulers/scheduling_pndm.py` of diffusers 0.42, its behaviour in img2img included: the counter of
//! evaluations starts at 0 wherever in the schedule the run begins.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::TimestepSpacing;
use crate::error::SchedulerError;
use crate::ipndm::adams_bashforth;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::PredictionType;
use crate::run::Setup;
use crate::timesteps::{Rounding, count, spaced};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

/// How many steps the Runge-Kutta warm-up covers, with four evaluations each but the first and last shared.
const ORDER: usize = 4;

#[derive(Debug)]
struct Pndm {
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    /// The timesteps of the Runge-Kutta evaluations; empty when the configuration skips them.
    warm_up: Vec<f64>,
    /// How far one step goes, in training timesteps.
    stride: f64,
    half_stride: f64,
    final_alpha_bar: f64,
    prediction: PredictionType,
    /// Evaluations so far.
    counter: usize,
    /// Outputs of earlier evaluations, the latest last; diffusers' `ets`.
    history: Vec<Latents>,
    /// Latents at the beginning of a step of several evaluations.
    cur_sample: Option<Latents>,
    /// The weighted sum of a Runge-Kutta step's outputs so far.
    cur_model_output: Option<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let falling = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let stride = schedule.len() / setup.steps();
    let half_stride = count(stride / 2);
    // The warm-up needs four steps; upstream fails with fewer, we leave it out.
    let skip_warm_up = config.skip_prk_steps.unwrap_or(false) || falling.len() < ORDER;
    let (warm_up, multistep) = if skip_warm_up {
        (Vec::new(), doubled_second(&falling))
    } else {
        (warm_up(&falling, half_stride), falling[3..].to_vec())
    };
    let timesteps = [warm_up.clone(), multistep].concat();
    for timestep in &timesteps {
        schedule.alpha_bar(*timestep)?;
    }
    let rule = Pndm {
        final_alpha_bar: if config.set_alpha_to_one.unwrap_or(false) {
            1.0
        } else {
            schedule.first_alpha_bar()
        },
        schedule,
        timesteps: timesteps.clone(),
        warm_up,
        stride: count(stride),
        half_stride,
        prediction: PredictionType::of(config)?,
        counter: 0,
        history: Vec::with_capacity(ORDER),
        cur_sample: None,
        cur_model_output: None,
    };
    Ok(Schedule {
        timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

/// The second timestep is evaluated twice: once to look ahead, once to go on.
fn doubled_second(falling: &[f64]) -> Vec<f64> {
    let mut timesteps = falling.to_vec();
    if let Some(second) = falling.get(1) {
        timesteps.insert(1, *second);
    }
    timesteps
}

/// Each of the first three steps is evaluated at its beginning, twice in its middle and at its end.
fn warm_up(falling: &[f64], half: f64) -> Vec<f64> {
    falling[..ORDER]
        .windows(2)
        // Upstream counts the middle up from the lower timestep.
        .flat_map(|pair| [pair[0], pair[1] + half, pair[1] + half, pair[1]])
        .collect()
}

impl Pndm {
    /// One evaluation of the Runge-Kutta warm-up: which noise to step with, and between which timesteps.
    fn runge_kutta(
        &mut self,
        timestep: f64,
        model_output: &Latents,
        sample: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let ahead = if self.counter.is_multiple_of(2) {
            self.half_stride
        } else {
            0.0
        };
        let to = timestep - ahead;
        let stage = self.counter % 4;
        let from = self.warm_up[self.counter - stage];
        let weight = if stage == 0 || stage == 3 {
            1.0 / 6.0
        } else {
            1.0 / 3.0
        };
        let sum = match self.cur_model_output.take() {
            Some(before) => weighted_sum(&[(1.0, &before), (weight, model_output)]),
            None => weighted_sum(&[(weight, model_output)]),
        };
        if stage == 0 {
            self.history.push(model_output.clone());
            self.cur_sample = Some(sample.clone());
        }
        let start = self.cur_sample.as_ref().unwrap_or(sample);
        if stage == 3 {
            return self.prev_sample(start, from, to, &sum);
        }
        self.cur_model_output = Some(sum);
        self.prev_sample(start, from, to, model_output)
    }

    /// One evaluation of the linear multistep method.
    fn multistep(
        &mut self,
        timestep: f64,
        model_output: &Latents,
        sample: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let (mut from, mut to) = (timestep, timestep - self.stride);
        if self.counter == 1 {
            // The first step again, now with the mean of both ends.
            (from, to) = (timestep + self.stride, timestep);
        } else {
            let keep = self.history.len().saturating_sub(3);
            self.history.drain(..keep);
            self.history.push(model_output.clone());
        }
        match self.history.as_slice() {
            [only] if self.counter == 1 => {
                let mean = weighted_sum(&[(0.5, model_output), (0.5, only)]);
                let start = self.cur_sample.take();
                self.prev_sample(start.as_ref().unwrap_or(sample), from, to, &mean)
            }
            [] | [_] => {
                self.cur_sample = Some(sample.clone());
                self.prev_sample(sample, from, to, model_output)
            }
            history => self.prev_sample(sample, from, to, &adams_bashforth(history)),
        }
    }

    /// Equation 11, diffusers' `_get_prev_sample`: from one timestep to another with a given output.
    fn prev_sample(
        &self,
        sample: &Latents,
        from: f64,
        to: f64,
        model_output: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let here = self
            .schedule
            .alpha_bar(from.min(count(self.schedule.len() - 1)))?;
        let there = if to >= 0.0 {
            self.schedule.alpha_bar(to)?
        } else {
            self.final_alpha_bar
        };
        let epsilon = self
            .prediction
            .epsilon(model_output, sample, Level::of_alpha_bar(here));
        let denominator = here * (1.0 - there).sqrt() + (here * (1.0 - here) * there).sqrt();
        let of_epsilon = -(there - here) / denominator;
        Ok(weighted_sum(&[
            ((there / here).sqrt(), sample),
            (of_epsilon, &epsilon),
        ]))
    }
}

impl UpdateRule for Pndm {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let timestep = self.timesteps[index];
        let prev_sample = if self.counter < self.warm_up.len() {
            self.runge_kutta(timestep, model_output, sample)?
        } else {
            self.multistep(timestep, model_output, sample)?
        };
        self.counter += 1;
        Ok(prev_sample)
    }
}
