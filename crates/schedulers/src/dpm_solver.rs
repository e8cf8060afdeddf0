//! The update of the DPM-Solver family, shared by its multistep and singlestep schedulers: Lu et al. 2022, "DPM-Solver",
//! arXiv 2206.00927, and "DPM-Solver++", arXiv 2211.01095, sections 3 to 5 and appendix A.
//!
//! Every variant is one exponential integrator: the latents, a value and up to two divided differences of the model's
//! outputs, and noise, each with a coefficient that depends on the two levels alone. The schedulers differ in which
//! outputs they take the differences of. Upstream: `schedulers/scheduling_dpmsolver_multistep.py` of diffusers 0.42.

use pentimento_types::AlgorithmType;

use crate::config::{SchedulerConfig, unknown};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;

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

/// The model's outputs for one update, in the basis of the integrator: upstream's `D0`, `D1` and `D2`.
#[derive(Debug)]
pub(crate) struct Differences<'a> {
    /// An output itself.
    pub(crate) d0: &'a Latents,
    /// The first divided difference, and how it is used.
    pub(crate) d1: Option<(Latents, FirstUse)>,
    /// The second one.
    pub(crate) d2: Option<Latents>,
}

/// How a first difference enters the update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstUse {
    /// With half the weight of `d0`, as the midpoint solvers do.
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

    /// Whether the solver works with the predicted image, not with the predicted noise.
    pub(crate) const fn predicts_x0(&self) -> bool {
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

    /// The model's output as the solver wants it, the image or the noise; diffusers' `convert_model_output`.
    pub(crate) fn convert(&self, model_output: &Latents, sample: &Latents, sigma: f64) -> Latents {
        let level = Level::of_sigma(sigma);
        if self.predicts_x0() {
            let original_sample = self.prediction.original_sample(model_output, sample, level);
            return Threshold::apply(self.threshold, original_sample);
        }
        let epsilon = self.prediction.epsilon(model_output, sample, level);
        if self.threshold.is_none() {
            return epsilon;
        }
        let original_sample = PredictionType::Epsilon.original_sample(&epsilon, sample, level);
        let original_sample = Threshold::apply(self.threshold, original_sample);
        PredictionType::Sample.epsilon(&original_sample, sample, level)
    }

    /// The step of the latents from level `from` to level `to`.
    pub(crate) fn update(
        &self,
        (from, to): (f64, f64),
        sample: &Latents,
        differences: &Differences<'_>,
        noise: Option<&Latents>,
    ) -> Latents {
        let weights = self.weights(Level::of_sigma(from), Level::of_sigma(to));
        let mut terms = vec![(weights.sample, sample), (weights.d0, differences.d0)];
        if let Some((d1, used)) = &differences.d1 {
            let weight = match used {
                FirstUse::Midpoint => weights.d0 / 2.0,
                FirstUse::Exact => weights.d1,
            };
            terms.push((weight, d1));
        }
        if let Some(d2) = &differences.d2 {
            terms.push((weights.d2, d2));
        }
        if let Some(noise) = noise {
            terms.push((weights.noise, noise));
        }
        weighted_sum(&terms)
    }

    /// With h = λ(to) - λ(from), infinite when the step ends without noise.
    fn weights(&self, from: Level, to: Level) -> Weights {
        let h = to.lambda() - from.lambda();
        match self.algorithm {
            AlgorithmType::DpmSolverPlusPlus => {
                let e = (-h).exp_m1();
                Weights {
                    sample: to.std / from.std,
                    d0: -to.alpha * e,
                    d1: to.alpha * (e / h + 1.0),
                    d2: -to.alpha * ((e + h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::DpmSolver => {
                let e = h.exp_m1();
                Weights {
                    sample: to.alpha / from.alpha,
                    d0: -to.std * e,
                    d1: -to.std * (e / h - 1.0),
                    d2: -to.std * ((e - h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            AlgorithmType::SdeDpmSolverPlusPlus => {
                let e = -(-2.0 * h).exp_m1();
                Weights {
                    sample: to.std / from.std * (-h).exp(),
                    d0: to.alpha * e,
                    d1: to.alpha * (e / (-2.0 * h) + 1.0),
                    d2: to.alpha * ((e - 2.0 * h) / (4.0 * h * h) - 0.5),
                    noise: to.std * e.sqrt(),
                }
            }
            AlgorithmType::SdeDpmSolver => {
                let e = h.exp_m1();
                Weights {
                    sample: to.alpha / from.alpha,
                    d0: -2.0 * to.std * e,
                    d1: -2.0 * to.std * (e / h - 1.0),
                    // Upstream has no third order for this algorithm, and the schedulers never ask for it.
                    d2: 0.0,
                    noise: to.std * (2.0 * h).exp_m1().sqrt(),
                }
            }
        }
    }
}

/// The coefficients of one update.
#[derive(Clone, Copy, Debug)]
struct Weights {
    sample: f64,
    d0: f64,
    d1: f64,
    d2: f64,
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
pub(crate) fn difference(a: &Latents, b: &Latents, weight: f64) -> Latents {
    a.clone().minus(b).scaled(weight)
}
