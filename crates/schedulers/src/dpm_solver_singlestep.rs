//! DPM-Solver and DPM-Solver++ as singlestep methods: orders 1, 2, 3 take turns, and a step of order n goes from the
//! latents of n - 1 evaluations ago; see [`crate::dpm_solver`] for the update and its papers (algorithms 4 and 5 of
//! arXiv 2206.00927, algorithm 1 of arXiv 2211.01095).
//!
//! Upstream: `schedulers/scheduling_dpmsolver_singlestep.py` of diffusers 0.42. Each evaluation is a step of its own
//! there, so strength counts evaluations, and a run that starts inside a group of orders begins with a lower one.

use candle_core::Tensor;
use pentimento_types::AlgorithmType;

use crate::SchedulerError;
use crate::config::TimestepSpacing;
use crate::dpm_solver::{Differences, FirstUse, Solver, difference};
use crate::dpm_solver_multistep::{final_sigma, usable_timesteps};
use crate::prediction::weighted_sum;
use crate::schedule::{BetaDefaults, Level, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::spaced_without_last;

#[derive(Debug)]
struct DpmSolverSinglestep {
    sigmas: Vec<f64>,
    solver: Solver,
    /// The order of each evaluation.
    orders: Vec<usize>,
    /// Earlier outputs, the latest last.
    outputs: Vec<Tensor>,
    /// The latents at the beginning of the group of orders.
    began: Option<Tensor>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
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
        outputs: Vec::new(),
        began: None,
    };
    Ok(Planned {
        timesteps: steps.timesteps,
        skipped: setup.first_step(),
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
    fn differences(&self, index: usize, order: usize) -> Result<Differences, SchedulerError> {
        let lambda = |i: usize| Level::of_sigma(self.sigmas[i]).lambda();
        let output = |k: usize| &self.outputs[self.outputs.len() - 1 - k];
        // Relative to the whole step, from the beginning of the group.
        let base = index + 1 - order;
        let ratio = |i: usize| (lambda(i) - lambda(base)) / (lambda(index + 1) - lambda(base));
        let value = output(order - 1).clone();
        if order == 1 {
            return Ok(Differences {
                value,
                first: None,
                second: None,
            });
        }
        let r0 = ratio(index);
        let widest = difference(output(0), &value, 1.0 / r0)?;
        if order == 2 {
            let used = if self.solver.midpoint {
                FirstUse::Midpoint
            } else {
                FirstUse::Exact
            };
            return Ok(Differences {
                value,
                first: Some((widest, used)),
                second: None,
            });
        }
        if self.solver.midpoint {
            return Ok(Differences {
                value,
                first: Some((widest, FirstUse::Exact)),
                second: None,
            });
        }
        let r1 = ratio(index - 1);
        let nearest = difference(output(1), &value, 1.0 / r1)?;
        let first = weighted_sum(&[(r0 / (r0 - r1), &nearest), (-r1 / (r0 - r1), &widest)])?;
        let second = difference(&widest, &nearest, 2.0 / (r0 - r1))?;
        Ok(Differences {
            value,
            first: Some((first, FirstUse::Exact)),
            second: Some(second),
        })
    }
}

impl UpdateRule for DpmSolverSinglestep {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        let level = Level::of_sigma(self.sigmas[index]);
        Ok(weighted_sum(&[(level.alpha, clean), (level.std, noise)])?)
    }

    fn step(&mut self, index: usize, mut given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let output = self
            .solver
            .output(given.prediction, given.latents, self.sigmas[index])?;
        if self.outputs.len() == self.solver.order {
            self.outputs.remove(0);
        }
        self.outputs.push(output);
        let noise = if self.solver.is_stochastic() {
            Some(given.draw()?)
        } else {
            None
        };
        let order = self.orders[index].min(self.outputs.len());
        if order == 1 {
            self.began = Some(given.latents.clone());
        }
        let start = self.began.as_ref().unwrap_or(given.latents);
        let levels = (self.sigmas[index + 1 - order], self.sigmas[index + 1]);
        let outputs = self.differences(index, order)?;
        self.solver.update(levels, start, &outputs, noise.as_ref())
    }
}
