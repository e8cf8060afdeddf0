//! DPM-Solver and DPM-Solver++ as singlestep methods: orders 1, 2, 3 take turns, and a step of order n goes from the
//! latents of n - 1 evaluations ago; see [`crate::dpm_solver`] for the update and its papers (algorithms 4 and 5 of
//! arXiv 2206.00927, algorithm 1 of arXiv 2211.01095).
//!
//! Upstream: `schedulers/scheduling_dpmsolver_singlestep.py` of diffusers 0.42. Each evaluation is a step of its own
//! there, so strength counts evaluations, and a run that starts inside a group of orders begins with a lower one.

use pentimento_types::AlgorithmType;

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::TimestepSpacing;
use crate::dpm_solver::{Differences, FirstUse, Solver, difference};
use crate::dpm_solver_multistep::{final_sigma, usable_timesteps};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::run::Setup;
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::spaced_without_last;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised};

#[derive(Debug)]
struct DpmSolverSinglestep {
    sigmas: Vec<f64>,
    solver: Solver,
    /// The order of each evaluation.
    orders: Vec<usize>,
    /// Converted outputs of earlier evaluations, the latest last.
    model_outputs: Vec<Latents>,
    /// The latents at the beginning of the group of orders; diffusers' `sample`.
    first_sample: Option<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let solver = Solver::of(setup)?;
    if solver.algorithm == AlgorithmType::SdeDpmSolver {
        return Err(SchedulerError::Setting {
            key: "algorithm_type",
            problem: "sde-dpmsolver exists only for DPMSolverMultistepScheduler".to_owned(),
        });
    }
    // This class knows no other spacing.
    let end = usable_timesteps(setup, &schedule);
    let timesteps = spaced_without_last(TimestepSpacing::Linspace, schedule.len(), end, setup.steps());
    let last = final_sigma(setup, &solver)?;
    let end = last.value(schedule.sigmas()[0]);
    let respacing = Respacing::of(setup);
    let steps =
        SigmaSteps::solver_family(setup, &schedule, timesteps, respacing, Some(end))?.whole(respacing);
    let count = steps.timesteps.len();
    let rule = DpmSolverSinglestep {
        orders: orders(
            count,
            solver.order,
            config.lower_order_final.unwrap_or(false),
            last,
        ),
        sigmas: steps.sigmas,
        solver,
        model_outputs: Vec::new(),
        first_sample: None,
    };
    Ok(Schedule {
        timesteps: steps.timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

/// `get_order_list`: groups 1, 2, .., order; the end is filled with lower ones.
fn orders(steps: usize, order: usize, lower_final: bool, last: FinalSigma) -> Vec<usize> {
    let whole = steps.is_multiple_of(order);
    // Upstream turns lower orders on by itself where it cannot do without.
    let lower_final = lower_final || !whole || last == FinalSigma::Zero;
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower_final && whole && order > 1 {
        // The last group would end at full order: it becomes 1, 2, 1 or 1, 1.
        orders[steps - 1] = 1;
    }
    if last == FinalSigma::Zero {
        orders[steps - 1] = 1;
    }
    orders
}

impl DpmSolverSinglestep {
    fn differences(&self, index: usize, order: usize) -> Differences<'_> {
        let lambda = |i: usize| Level::of_sigma(self.sigmas[i]).lambda();
        let output = |k: usize| &self.model_outputs[self.model_outputs.len() - 1 - k];
        // Relative to the whole step, from the beginning of the group.
        let base = index + 1 - order;
        let ratio = |i: usize| (lambda(i) - lambda(base)) / (lambda(index + 1) - lambda(base));
        let d0 = output(order - 1);
        if order == 1 {
            return Differences {
                d0,
                d1: None,
                d2: None,
            };
        }
        let r0 = ratio(index);
        let widest = difference(output(0), d0, 1.0 / r0);
        if order == 2 {
            let used = if self.solver.midpoint {
                FirstUse::Midpoint
            } else {
                FirstUse::Exact
            };
            return Differences {
                d0,
                d1: Some((widest, used)),
                d2: None,
            };
        }
        if self.solver.midpoint {
            return Differences {
                d0,
                d1: Some((widest, FirstUse::Exact)),
                d2: None,
            };
        }
        let r1 = ratio(index - 1);
        let nearest = difference(output(1), d0, 1.0 / r1);
        let d1 = weighted_sum(&[(r0 / (r0 - r1), &nearest), (-r1 / (r0 - r1), &widest)]);
        let d2 = difference(&widest, &nearest, 2.0 / (r0 - r1));
        Differences {
            d0,
            d1: Some((d1, FirstUse::Exact)),
            d2: Some(d2),
        }
    }
}

impl UpdateRule for DpmSolverSinglestep {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let level = Level::of_sigma(self.sigmas[index]);
        Ok(noised(level, init_latents, noise))
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let output = self
            .solver
            .convert(inputs.model_output, inputs.sample, self.sigmas[index]);
        if self.model_outputs.len() == self.solver.order {
            self.model_outputs.remove(0);
        }
        self.model_outputs.push(output);
        let noise = if self.solver.is_stochastic() {
            Some(inputs.draw_noise())
        } else {
            None
        };
        let order = self.orders[index].min(self.model_outputs.len());
        if order == 1 {
            self.first_sample = Some(inputs.sample.clone());
        }
        let sample = self.first_sample.as_ref().unwrap_or(inputs.sample);
        let levels = (self.sigmas[index + 1 - order], self.sigmas[index + 1]);
        let differences = self.differences(index, order);
        Ok(self.solver.update(levels, sample, &differences, noise.as_ref()))
    }
}
