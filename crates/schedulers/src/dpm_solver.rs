//! The update of the DPM-Solver family, shared by its multistep and singlestep schedulers: Lu et al. 2022, "DPM-Solver",
//! arXiv 2206.00927, and "DPM-Solver++", arXiv 2211.01095, sections 3 to 5 and appendix A.
//!
//! Every variant is one exponential integrator: the latents, a value and up to two divided differences of the model's
//! outputs, and noise, each with a coefficient that depends on the two levels alone. The schedulers differ in which
//! outputs they take the differences of. Upstream: `schedulers/scheduling_dpmsolver_multistep.py` of diffusers 0.42.

use candle_core::Tensor;
use pentimento_types::AlgorithmType;

use crate::config::unknown;
use crate::prediction::{PredictionType, Threshold, weighted_sum};
use crate::schedule::Level;
use crate::scheduler::Setup;
use crate::{SchedulerConfig, SchedulerError};

/// What the configuration and the request say about the solver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solver {
    pub(crate) algorithm: AlgorithmType,
    /// The two ways of using a first difference: at the midpoint, or Heun's.
    pub(crate) midpoint: bool,
    /// 1 to 3.
    pub(crate) order: usize,
    prediction: PredictionType,
    threshold: Option<Threshold>,
}

/// The model's outputs for one update, in the basis of the integrator.
#[derive(Debug)]
pub(crate) struct Differences {
    pub(crate) value: Tensor,
    /// The first difference and whether it is used in the simple way of the midpoint solvers.
    pub(crate) first: Option<(Tensor, FirstUse)>,
    pub(crate) second: Option<Tensor>,
}

/// How a first difference enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstUse {
    /// Half the weight of the value.
    Midpoint,
    /// The exact integral of a linear output.
    Exact,
}

impl Solver {
    pub(crate) fn of(setup: &Setup<'_>) -> Result<Self, SchedulerError> {
        let config = setup.config;
        refuse_flow(config)?;
        let midpoint = match config.solver_type.as_deref() {
            // The other solvers' types mean the default to these classes.
            None | Some("midpoint" | "logrho" | "bh1" | "bh2") => true,
            Some("heun") => false,
            Some(other) => return Err(unknown("solver_type", other)),
        };
        let stated = match config.algorithm_type.as_deref() {
            None | Some("dpmsolver++" | "deis") => AlgorithmType::DpmSolverPlusPlus,
            Some("dpmsolver") => AlgorithmType::DpmSolver,
            Some("sde-dpmsolver") => AlgorithmType::SdeDpmSolver,
            Some("sde-dpmsolver++") => AlgorithmType::SdeDpmSolverPlusPlus,
            Some(other) => return Err(unknown("algorithm_type", other)),
        };
        Ok(Self {
            algorithm: setup.algorithm.unwrap_or(stated),
            midpoint,
            order: solver_order(config)?,
            prediction: PredictionType::of(config)?,
            threshold: Threshold::of(config)?,
        })
    }

    /// Whether the solver works with the predicted clean picture, not with the predicted noise.
    pub(crate) const fn predicts_clean(&self) -> bool {
        match self.algorithm {
            AlgorithmType::DpmSolverPlusPlus | AlgorithmType::SdeDpmSolverPlusPlus => true,
            AlgorithmType::DpmSolver | AlgorithmType::SdeDpmSolver => false,
        }
    }

    /// Whether every step draws noise.
    pub(crate) const fn is_stochastic(&self) -> bool {
        match self.algorithm {
            AlgorithmType::SdeDpmSolver | AlgorithmType::SdeDpmSolverPlusPlus => true,
            AlgorithmType::DpmSolver | AlgorithmType::DpmSolverPlusPlus => false,
        }
    }

    /// The model's output as the solver wants it: the clean picture or the noise.
    pub(crate) fn output(
        &self,
        prediction: &Tensor,
        latents: &Tensor,
        sigma: f64,
    ) -> Result<Tensor, SchedulerError> {
        let level = Level::of_sigma(sigma);
        if self.predicts_clean() {
            let clean = self.prediction.clean(prediction, latents, level)?;
            return Ok(Threshold::apply(self.threshold, clean)?);
        }
        let noise = self.prediction.noise(prediction, latents, level)?;
        if self.threshold.is_none() {
            return Ok(noise);
        }
        let clean = PredictionType::Epsilon.clean(&noise, latents, level)?;
        let clean = Threshold::apply(self.threshold, clean)?;
        Ok(PredictionType::Sample.noise(&clean, latents, level)?)
    }

    /// The step of the latents from level `from` to level `to`.
    pub(crate) fn update(
        &self,
        (from, to): (f64, f64),
        latents: &Tensor,
        outputs: &Differences,
        noise: Option<&Tensor>,
    ) -> Result<Tensor, SchedulerError> {
        let weights = self.weights(Level::of_sigma(from), Level::of_sigma(to));
        let mut terms = vec![(weights.latents, latents), (weights.value, &outputs.value)];
        if let Some((first, used)) = &outputs.first {
            let weight = match used {
                FirstUse::Midpoint => weights.value / 2.0,
                FirstUse::Exact => weights.first,
            };
            terms.push((weight, first));
        }
        if let Some(second) = &outputs.second {
            terms.push((weights.second, second));
        }
        if let Some(noise) = noise {
            terms.push((weights.noise, noise));
        }
        Ok(weighted_sum(&terms)?)
    }

    /// With h = λ(to) - λ(from), infinite when the step ends without noise.
    fn weights(&self, from: Level, to: Level) -> Weights {
        let h = to.lambda() - from.lambda();
        match self.algorithm {
            AlgorithmType::DpmSolverPlusPlus => {
                let e = (-h).exp_m1();
                Weights {
                    latents: to.std / from.std,
                    value: -to.alpha * e,
                    first: to.alpha * (e / h + 1.0),
                    second: -to.alpha * ((e + h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::DpmSolver => {
                let e = h.exp_m1();
                Weights {
                    latents: to.alpha / from.alpha,
                    value: -to.std * e,
                    first: -to.std * (e / h - 1.0),
                    second: -to.std * ((e - h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::SdeDpmSolverPlusPlus => {
                let e = -(-2.0 * h).exp_m1();
                Weights {
                    latents: to.std / from.std * (-h).exp(),
                    value: to.alpha * e,
                    first: to.alpha * (e / (-2.0 * h) + 1.0),
                    second: to.alpha * ((e - 2.0 * h) / (4.0 * h * h) - 0.5),
                    noise: to.std * e.sqrt(),
                }
            }
            AlgorithmType::SdeDpmSolver => {
                let e = h.exp_m1();
                Weights {
                    latents: to.alpha / from.alpha,
                    value: -2.0 * to.std * e,
                    first: -2.0 * to.std * (e / h - 1.0),
                    // Upstream has no third order for this algorithm, and the schedulers never ask for it.
                    second: 0.0,
                    noise: to.std * (2.0 * h).exp_m1().sqrt(),
                }
            }
        }
    }
}

/// The coefficients of one update.
#[derive(Clone, Copy, Debug)]
struct Weights {
    latents: f64,
    value: f64,
    first: f64,
    second: f64,
    noise: f64,
}

/// `solver_order`, 2 by default.
pub(crate) fn solver_order(config: &SchedulerConfig) -> Result<usize, SchedulerError> {
    match config.solver_order.unwrap_or(2) {
        order @ 1..=3 => Ok(order),
        other => Err(SchedulerError::Setting {
            key: "solver_order",
            problem: format!("{other} is not between 1 and 3"),
        }),
    }
}

/// Flow-matching levels belong to other model families.
pub(crate) fn refuse_flow(config: &SchedulerConfig) -> Result<(), SchedulerError> {
    if config.use_flow_sigmas.unwrap_or(false) {
        return Err(SchedulerError::Setting {
            key: "use_flow_sigmas",
            problem: "flow matching is not what Stable Diffusion checkpoints are trained with".to_owned(),
        });
    }
    Ok(())
}

/// `(a - b) * weight`.
pub(crate) fn difference(a: &Tensor, b: &Tensor, weight: f64) -> Result<Tensor, SchedulerError> {
    Ok(((a - b)? * weight)?)
}
