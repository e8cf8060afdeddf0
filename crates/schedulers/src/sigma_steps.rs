//! Which noise levels a run visits, in sigma: at the timesteps, or spaced by themselves as Karras and others do.
//!
//! All lists fall from noise to image, and no step of a checked list goes up.

use crate::beta_quantile::beta_quantile;
use crate::config::{SchedulerConfig, TimestepSpacing, unknown};
use crate::error::SchedulerError;
use crate::noise_schedule::{NoiseSchedule, too_many_steps};
use crate::run::Setup;
use crate::timesteps::{Rounding, linspace, log_sigmas, sigma_at, spaced, timestep_of, to_f32};

/// Ways of spacing the noise levels themselves instead of the timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Respacing {
    /// Karras et al. 2022, arXiv 2206.00364, equation 5, rho = 7.
    Karras,
    /// Evenly in log sigma.
    Exponential,
    /// Evenly in log sigma, as `use_lu_lambdas` (Lu et al. 2022, arXiv 2206.00927) with its rho of 1.
    LuLambdas,
    /// The quantiles of a Beta(0.6, 0.6) distribution (Lee et al. 2024, arXiv 2407.12173).
    Beta,
}

impl Respacing {
    /// What the request or the configuration asks for. The request's Karras wins over the file's other ways.
    pub(crate) fn of(setup: &Setup<'_>) -> Option<Self> {
        let config = setup.config;
        if setup.fixed.is_some() {
            return None;
        }
        let says = |key: Option<bool>| key.unwrap_or(false);
        if setup.karras || says(config.use_karras_sigmas) {
            Some(Self::Karras)
        } else if says(config.use_exponential_sigmas) {
            Some(Self::Exponential)
        } else if says(config.use_beta_sigmas) {
            Some(Self::Beta)
        } else {
            None
        }
    }

    /// `steps` levels from `first` down to `last`, unless the file gives its own bounds.
    pub(crate) fn levels(self, config: &SchedulerConfig, bounds: (f64, f64), steps: usize) -> Vec<f64> {
        let (first, last) = match self {
            Self::LuLambdas => bounds,
            Self::Karras | Self::Exponential | Self::Beta => (
                config.sigma_max.unwrap_or(bounds.0),
                config.sigma_min.unwrap_or(bounds.1),
            ),
        };
        match self {
            Self::Karras => {
                let (high, low) = (first.powf(1.0 / 7.0), last.powf(1.0 / 7.0));
                let level = |ramp: f64| (high + ramp * (low - high)).powi(7);
                linspace(0.0, 1.0, steps).into_iter().map(level).collect()
            }
            Self::Exponential | Self::LuLambdas => linspace(first.ln(), last.ln(), steps)
                .into_iter()
                .map(f64::exp)
                .collect(),
            Self::Beta => {
                let level = |x: f64| last + beta_quantile(1.0 - x, 0.6) * (first - last);
                linspace(0.0, 1.0, steps).into_iter().map(level).collect()
            }
        }
    }
}

/// No schedule of a trained model goes higher: zero-terminal-SNR ones start at 4096 in diffusers, those of squared
/// cosine betas at some 20 000. From far above it the f32 latents of the stochastic schedulers overflow.
const LARGEST_SIGMA: f64 = 100_000.0;

/// The noise levels of a run in sigma, and the timestep of each.
#[derive(Clone, Debug)]
pub(crate) struct SigmaSteps {
    /// One per step.
    pub(crate) timesteps: Vec<f64>,
    /// One more than steps: the last is where the run ends, usually 0.
    pub(crate) sigmas: Vec<f64>,
    /// For timesteps between those of the schedule.
    pub(crate) log_sigmas: Vec<f64>,
}

impl SigmaSteps {
    /// Checks that every step goes down; only the last may stay where it is. The first is no higher than
    /// [`LARGEST_SIGMA`].
    fn checked(self, train: usize) -> Result<Self, SchedulerError> {
        let steps = self.timesteps.len();
        if self.sigmas.iter().any(|sigma| *sigma > LARGEST_SIGMA) {
            return Err(SchedulerError::Setting {
                key: "sigma_max",
                problem: format!("leads to noise levels above {LARGEST_SIGMA}; leave it out or lower it"),
            });
        }
        let falls = self.sigmas[..steps].windows(2).all(|pair| pair[0] > pair[1]);
        let ends = steps > 0 && self.sigmas[steps - 1] >= self.sigmas[steps] && self.sigmas[steps - 1] > 0.0;
        if falls && ends {
            return Ok(self);
        }
        Err(too_many_steps(steps, train))
    }

    /// As the Euler family lays them out (`EulerDiscreteScheduler.set_timesteps`).
    pub(crate) fn euler_family(
        setup: &Setup<'_>,
        schedule: &NoiseSchedule,
        respacing: Option<Respacing>,
    ) -> Result<Self, SchedulerError> {
        let spacing = setup.config.timestep_spacing(TimestepSpacing::Linspace)?;
        let all = schedule.sigmas();
        let log_sigmas = log_sigmas(&all);
        let mut timesteps =
            setup.timesteps_or(|| spaced(spacing, schedule.len(), setup.steps(), Rounding::None));
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| sigma_at(*t, &all)).collect();
        if let Some(respacing) = respacing {
            let bounds = (sigmas[0], sigmas[sigmas.len() - 1]);
            sigmas = respacing.levels(setup.config, bounds, setup.steps());
            timesteps = sigmas.iter().map(|s| timestep_of(*s, &log_sigmas)).collect();
        }
        sigmas.push(0.0);
        let steps = Self {
            timesteps: timesteps.into_iter().map(to_f32).collect(),
            sigmas: sigmas.into_iter().map(to_f32).collect(),
            log_sigmas,
        };
        steps.checked(schedule.len())
    }
}

impl SigmaSteps {
    /// As the DPM-Solver family lays them out (`DPMSolverMultistepScheduler.set_timesteps`): respaced
    /// levels run over the whole schedule. `end` is the level after the last step; `None` is the last
    /// level again, or the schedule's smallest where nothing is respaced.
    pub(crate) fn solver_family(
        setup: &Setup<'_>,
        schedule: &NoiseSchedule,
        timesteps: Vec<f64>,
        respacing: Option<Respacing>,
        end: Option<f64>,
    ) -> Result<Self, SchedulerError> {
        let all = schedule.sigmas();
        let log_sigmas = log_sigmas(&all);
        let (mut timesteps, mut smallest) = (timesteps, all[0]);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|t| sigma_at(*t, &all)).collect();
        if let Some(respacing) = respacing {
            sigmas = respacing.levels(setup.config, (all[all.len() - 1], all[0]), setup.steps());
            timesteps = sigmas.iter().map(|s| timestep_of(*s, &log_sigmas)).collect();
            smallest = sigmas[sigmas.len() - 1];
        }
        sigmas.push(end.unwrap_or(smallest));
        let steps = Self {
            timesteps,
            sigmas: sigmas.into_iter().map(to_f32).collect(),
            log_sigmas,
        };
        steps.checked(schedule.len())
    }
}

impl SigmaSteps {
    /// Whole timesteps, as the DPM-Solver family stores them: rounded where the levels follow Karras or Lu, cut off
    /// where they follow something else.
    pub(crate) fn whole(mut self, respacing: Option<Respacing>) -> Self {
        let round = match respacing {
            Some(Respacing::Karras | Respacing::LuLambdas) => f64::round_ties_even,
            None | Some(Respacing::Exponential | Respacing::Beta) => f64::trunc,
        };
        for timestep in &mut self.timesteps {
            *timestep = round(*timestep);
        }
        self
    }
}

/// `final_sigmas_type`: where the last step ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinalSigma {
    Zero,
    /// The smallest level that the model was trained on.
    Smallest,
}

impl FinalSigma {
    pub(crate) fn of(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        match config.final_sigmas_type.as_deref() {
            None | Some("zero") => Ok(Self::Zero),
            Some("sigma_min") => Ok(Self::Smallest),
            Some(other) => Err(unknown("final_sigmas_type", other)),
        }
    }

    pub(crate) fn value(self, smallest: f64) -> f64 {
        match self {
            Self::Zero => 0.0,
            Self::Smallest => smallest,
        }
    }
}
