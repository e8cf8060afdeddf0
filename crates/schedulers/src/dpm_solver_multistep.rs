//! DPM-Solver and DPM-Solver++ as multistep methods, also as solvers of the stochastic equation; see
//! [`crate::dpm_solver`] for the update and its papers (algorithm 2 of arXiv 2211.01095).
//!
//! Upstream: `schedulers/scheduling_dpmsolver_multistep.py` of diffusers 0.42.

use pentimento_types::AlgorithmType;

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::{LambdaMin, TimestepSpacing};
use crate::dpm_solver::{Differences, FirstUse, Solver, difference};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::run::Setup;
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::spaced_without_last;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised};

/// Runs shorter than this end with lower orders when `lower_order_final` is set.
pub(crate) const SHORT_RUN: usize = 15;

#[derive(Debug)]
struct DpmSolverMultistep {
    sigmas: Vec<f64>,
    solver: Solver,
    lower_order_final: bool,
    euler_at_final: bool,
    /// Converted outputs of earlier evaluations, the latest last.
    model_outputs: Vec<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let solver = Solver::of(setup)?;
    let spacing = config.timestep_spacing(TimestepSpacing::Linspace)?;
    let timesteps = spaced_without_last(
        spacing,
        schedule.len(),
        usable_timesteps(setup, &schedule),
        setup.steps(),
    );
    let respacing = match Respacing::of(setup) {
        // In upstream's order of precedence.
        Some(Respacing::Karras) => Some(Respacing::Karras),
        _ if config.use_lu_lambdas.unwrap_or(false) => Some(Respacing::LuLambdas),
        other => other,
    };
    let end = final_sigma(setup, &solver)?.value(schedule.sigmas()[0]);
    let steps = SigmaSteps::solver_family(setup, &schedule, timesteps, respacing, Some(end))?;
    // Upstream does not round the timesteps of the cosine schedule, and then cuts them off.
    let rounds = config.beta_schedule.as_deref() != Some("squaredcos_cap_v2");
    let steps = steps.whole(respacing.filter(|_| rounds));
    let rule = DpmSolverMultistep {
        sigmas: steps.sigmas,
        solver,
        lower_order_final: config.lower_order_final.unwrap_or(true),
        euler_at_final: config.euler_at_final.unwrap_or(false),
        model_outputs: Vec::new(),
    };
    Ok(Schedule {
        timesteps: steps.timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

/// The solvers of the noise cannot end without noise, where λ is infinite; upstream refuses and names this remedy.
pub(crate) fn final_sigma(setup: &Setup<'_>, solver: &Solver) -> Result<FinalSigma, SchedulerError> {
    let stated = FinalSigma::of(setup.config)?;
    Ok(if solver.predicts_x0() {
        stated
    } else {
        FinalSigma::Smallest
    })
}

/// How many timesteps have a λ of at least `lambda_min_clipped`.
pub(crate) fn usable_timesteps(setup: &Setup<'_>, schedule: &NoiseSchedule) -> usize {
    let least = setup
        .config
        .lambda_min_clipped
        .as_ref()
        .map_or(f64::NEG_INFINITY, LambdaMin::value);
    let usable = schedule.lambdas().iter().filter(|l| **l >= least).count();
    usable.max(1)
}

impl DpmSolverMultistep {
    fn differences(&self, index: usize, order: usize) -> Differences<'_> {
        let lambda = |i: usize| Level::of_sigma(self.sigmas[i]).lambda();
        let step = lambda(index + 1) - lambda(index);
        let ratio = |k: usize| (lambda(index - k) - lambda(index - k - 1)) / step;
        let output = |k: usize| &self.model_outputs[self.model_outputs.len() - 1 - k];
        let d0 = output(0);
        if order == 1 {
            return Differences {
                d0,
                d1: None,
                d2: None,
            };
        }
        let r0 = ratio(0);
        let recent = difference(d0, output(1), 1.0 / r0);
        if order == 2 {
            let used = if self.solver.midpoint {
                FirstUse::Midpoint
            } else {
                FirstUse::Exact
            };
            return Differences {
                d0,
                d1: Some((recent, used)),
                d2: None,
            };
        }
        let r1 = ratio(1);
        let older = difference(output(1), output(2), 1.0 / r1);
        let bend = recent.clone().minus(&older);
        let d1 = weighted_sum(&[(1.0, &recent), (r0 / (r0 + r1), &bend)]);
        Differences {
            d0,
            d1: Some((d1, FirstUse::Exact)),
            d2: Some(bend.scaled(1.0 / (r0 + r1))),
        }
    }

    /// Orders rise at the beginning of the run and, in short runs and before the finished image, fall at its end.
    fn order_at(&self, index: usize) -> usize {
        let left = self.sigmas.len() - 1 - index;
        let short = self.lower_order_final && self.sigmas.len() - 1 < SHORT_RUN;
        // Infinite in λ, or empty: higher orders would divide by it.
        let degenerate = self.sigmas[index + 1] == 0.0 || self.sigmas[index + 1] == self.sigmas[index];
        let most = match left {
            1 if self.euler_at_final || short || degenerate => 1,
            2 if short => 2,
            _ if self.solver.algorithm == AlgorithmType::SdeDpmSolver => 2,
            _ => 3,
        };
        most.min(self.solver.order).min(self.model_outputs.len())
    }
}

impl UpdateRule for DpmSolverMultistep {
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
        let levels = (self.sigmas[index], self.sigmas[index + 1]);
        let output = self.solver.convert(inputs.model_output, inputs.sample, levels.0);
        if self.model_outputs.len() == self.solver.order {
            self.model_outputs.remove(0);
        }
        self.model_outputs.push(output);
        let noise = if self.solver.is_stochastic() {
            Some(inputs.draw_noise())
        } else {
            None
        };
        let differences = self.differences(index, self.order_at(index));
        Ok(self
            .solver
            .update(levels, inputs.sample, &differences, noise.as_ref()))
    }
}
