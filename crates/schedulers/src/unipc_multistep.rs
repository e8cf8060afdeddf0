//! UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
//! arXiv 2302.04867, algorithms 5 to 8 (UniP and UniC with B1 or B2).
//!
//! Upstream: `schedulers/scheduling_unipc_multistep.py` of diffusers 0.42. The corrector of a step uses the evaluation
//! of the next one, so every evaluation first corrects the latents that it was made from and then predicts onward.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::{TimestepSpacing, unknown};
use crate::dpm_solver::{difference, refuse_flow, solver_order};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::{count, spaced_without_last};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised};

#[derive(Debug)]
struct UniPc {
    sigmas: Vec<f64>,
    order: usize,
    lower_order_final: bool,
    /// Steps whose result is not corrected.
    uncorrected: Vec<usize>,
    /// B(h) = h, or B(h) = e^h - 1.
    b1: bool,
    predict_x0: bool,
    prediction: PredictionType,
    threshold: Option<Threshold>,
    /// Converted outputs of earlier evaluations, the latest last.
    model_outputs: Vec<Latents>,
    /// The latents that the last step began from, and its order; diffusers' `last_sample`, `this_order`.
    last: Option<(Latents, usize)>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    refuse_flow(config)?;
    let b1 = match config.solver_type.as_deref() {
        None | Some("bh2" | "midpoint" | "heun" | "logrho") => false,
        Some("bh1") => true,
        Some(other) => return Err(unknown("solver_type", other)),
    };
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Linspace)?;
    let timesteps = spaced_without_last(spacing, schedule.len(), schedule.len(), setup.steps());
    let predict_x0 = config.predict_x0.unwrap_or(true);
    let end = match FinalSigma::of(config)? {
        FinalSigma::Zero if predict_x0 => Some(0.0),
        // The last respaced level again, or the schedule's smallest. With the noise as output a run cannot end without
        // noise: upstream multiplies 0 by infinity there.
        FinalSigma::Zero | FinalSigma::Smallest => None,
    };
    let respacing = Respacing::of(setup);
    let steps = SigmaSteps::solver_family(setup, &schedule, timesteps, respacing, end)?.whole(respacing);
    let rule = UniPc {
        sigmas: steps.sigmas,
        order: solver_order(config)?,
        lower_order_final: config.lower_order_final.unwrap_or(true),
        uncorrected: config.disable_corrector.clone().unwrap_or_default(),
        b1,
        predict_x0,
        prediction: PredictionType::of(config)?,
        threshold: Threshold::of(config)?,
        model_outputs: Vec::new(),
        last: None,
    };
    Ok(Schedule {
        timesteps: steps.timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

/// What predictor and corrector share for one step.
#[derive(Debug)]
struct StepTerms {
    /// The latents and the latest output brought to the next level.
    carried: Latents,
    /// How much of the differences is added.
    scale: f64,
    /// Positions of the outputs relative to the step: earlier ones are negative, the next one is 1.
    positions: Vec<f64>,
    /// The matching right-hand sides of the order conditions.
    conditions: Vec<f64>,
    /// Differences of earlier outputs from the latest, over their positions.
    differences: Vec<Latents>,
}

impl UniPc {
    /// The image or the noise, as the solver wants it; diffusers' `convert_model_output`.
    fn convert(&self, model_output: &Latents, sample: &Latents, index: usize) -> Latents {
        let level = Level::of_sigma(self.sigmas[index]);
        if self.predict_x0 {
            let original_sample = self.prediction.original_sample(model_output, sample, level);
            return Threshold::apply(self.threshold, original_sample);
        }
        self.prediction.epsilon(model_output, sample, level)
    }

    /// The step from level `index` with the outputs up to it.
    fn terms(&self, index: usize, sample: &Latents, order: usize) -> StepTerms {
        let level = |i: usize| Level::of_sigma(self.sigmas[i]);
        let (from, to) = (level(index), level(index + 1));
        let h = to.lambda() - from.lambda();
        let latest = &self.model_outputs[self.model_outputs.len() - 1];
        let mut positions = Vec::with_capacity(order);
        let mut differences = Vec::with_capacity(order);
        for k in 1..order {
            let position = (level(index - k).lambda() - from.lambda()) / h;
            let earlier = &self.model_outputs[self.model_outputs.len() - 1 - k];
            differences.push(difference(earlier, latest, 1.0 / position));
            positions.push(position);
        }
        positions.push(1.0);

        let signed = if self.predict_x0 { -h } else { h };
        let phi = signed.exp_m1();
        let b = if self.b1 { signed } else { phi };
        // φ_{k+1}(h) h k! / B(h), equation 10 of the paper.
        let mut conditions = Vec::with_capacity(order);
        let (mut phi_k, mut factorial) = (phi / signed - 1.0, 1.0);
        for k in 1..=order {
            conditions.push(phi_k * factorial / b);
            factorial *= count(k + 1);
            phi_k = phi_k / signed - 1.0 / factorial;
        }
        let (keep, weight) = if self.predict_x0 {
            (to.std / from.std, to.alpha)
        } else {
            (to.alpha / from.alpha, to.std)
        };
        StepTerms {
            carried: weighted_sum(&[(keep, sample), (-weight * phi, latest)]),
            scale: -weight * b,
            positions,
            conditions,
            differences,
        }
    }

    /// UniP: onward from evaluation `index`.
    fn predict(&self, index: usize, sample: &Latents, order: usize) -> Latents {
        let step = self.terms(index, sample, order);
        let weights = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => order_conditions(&step.positions[..order - 1], &step.conditions[..order - 1]),
        };
        let mut terms = vec![(1.0, &step.carried)];
        terms.extend(
            weights
                .iter()
                .zip(&step.differences)
                .map(|(w, d)| (w * step.scale, d)),
        );
        weighted_sum(&terms)
    }

    /// UniC: the step that ended at evaluation `index` again, with that evaluation's `output`.
    fn correct(&self, index: usize, output: &Latents, last_sample: &Latents, order: usize) -> Latents {
        let mut step = self.terms(index - 1, last_sample, order);
        let weights = match order {
            1 => vec![0.5],
            _ => order_conditions(&step.positions, &step.conditions),
        };
        let latest = &self.model_outputs[self.model_outputs.len() - 1];
        step.differences.push(difference(output, latest, 1.0));
        let mut terms = vec![(1.0, &step.carried)];
        terms.extend(
            weights
                .iter()
                .zip(&step.differences)
                .map(|(w, d)| (w * step.scale, d)),
        );
        weighted_sum(&terms)
    }

    fn order_at(&self, index: usize) -> usize {
        let left = self.sigmas.len() - 1 - index;
        // A last step to the finished image is infinite in λ, one to the same level again is empty; upstream divides by
        // both where lower orders are turned off, only order 1 has finite weights.
        let (here, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let most = if self.lower_order_final || next == 0.0 || next == here {
            left
        } else {
            self.order
        };
        most.min(self.order).min(self.model_outputs.len())
    }
}

/// Solves sum over j of `w_j * positions_j^k = conditions_k`, by elimination with pivoting.
fn order_conditions(positions: &[f64], conditions: &[f64]) -> Vec<f64> {
    let n = positions.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|k| {
            let powers = positions.iter().map(|p| (0..k).fold(1.0, |power, _| power * p));
            powers.chain([conditions[k]]).collect()
        })
        .collect();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))
            .unwrap_or(column);
        rows.swap(column, pivot);
        let (done, below) = rows.split_at_mut(column + 1);
        for row in below {
            let factor = row[column] / done[column][column];
            for (value, above) in row.iter_mut().zip(&done[column]).skip(column) {
                *value -= factor * above;
            }
        }
    }
    let mut weights = vec![0.0; n];
    for row in (0..n).rev() {
        let solved: f64 = (row + 1..n).map(|j| rows[row][j] * weights[j]).sum();
        weights[row] = (rows[row][n] - solved) / rows[row][row];
    }
    weights
}

impl UpdateRule for UniPc {
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
        let output = self.convert(inputs.model_output, inputs.sample, index);
        let mut sample = inputs.sample.clone();
        if let Some((last_sample, order)) = self.last.take()
            && !self.uncorrected.contains(&(index - 1))
        {
            sample = self.correct(index, &output, &last_sample, order);
        }
        if self.model_outputs.len() == self.order {
            self.model_outputs.remove(0);
        }
        self.model_outputs.push(output);
        let order = self.order_at(index);
        let prev_sample = self.predict(index, &sample, order);
        self.last = Some((sample, order));
        Ok(prev_sample)
    }
}
