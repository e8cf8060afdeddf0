//! Which timesteps and noise levels a run visits: the three spacings of diffusers and the respacings of Karras and
//! others.
//!
//! All lists fall from noise to picture. The arithmetic is NumPy's, in f64, rounded to f32 where diffusers stores f32.

use crate::config::{TimestepSpacing, unknown};
use crate::schedule::{NoiseSchedule, too_many_steps};
use crate::scheduler::Setup;
use crate::{SchedulerConfig, SchedulerError};

/// diffusers' pipelines set `steps_offset` to 1 on every scheduler that knows the key.
pub(crate) const STEPS_OFFSET: f64 = 1.0;

/// Whether evenly spaced timesteps are whole numbers: those classes look ᾱ up, the others interpolate sigma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Whole,
    None,
}

/// `steps` timesteps as the DDPM and Euler families space them.
pub(crate) fn spaced(spacing: TimestepSpacing, train: usize, steps: usize, rounding: Rounding) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => {
            let even = linspace(0.0, count(train) - 1.0, steps);
            let rounded = |t: f64| match rounding {
                Rounding::Whole => t.round_ties_even(),
                Rounding::None => to_f32(t),
            };
            even.into_iter().rev().map(rounded).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = train / steps;
            (0..steps)
                .rev()
                .map(|i| count(i * ratio) + STEPS_OFFSET)
                .collect()
        }
        TimestepSpacing::Trailing => trailing(count(train), count(train) / count(steps)),
    }
}

/// `steps` timesteps as the DPM-Solver family spaces them: one more is laid out and the last, 0, left out.
/// `end` is the number of timesteps that may be used, all unless `lambda_min_clipped` is set.
pub(crate) fn spaced_without_last(
    spacing: TimestepSpacing,
    train: usize,
    end: usize,
    steps: usize,
) -> Vec<f64> {
    match spacing {
        TimestepSpacing::Linspace => {
            let even = linspace(0.0, count(end) - 1.0, steps + 1);
            even.into_iter().skip(1).rev().map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = end / (steps + 1);
            (1..=steps)
                .rev()
                .map(|i| count(i * ratio) + STEPS_OFFSET)
                .collect()
        }
        TimestepSpacing::Trailing => trailing(count(end), count(train) / count(steps)),
    }
}

/// `np.arange(end, 0, -ratio).round() - 1`, with NumPy's way of counting and filling.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of steps"
)]
fn trailing(end: f64, ratio: f64) -> Vec<f64> {
    let length = (end / ratio).ceil() as usize;
    let delta = (end - ratio) - end;
    let at = |i: usize| (count(i) * delta + end).round_ties_even() - 1.0;
    // Rounding can make one value too many, below the first timestep.
    (0..length).map(at).filter(|t| *t >= 0.0).collect()
}

/// `np.linspace` in f64: the last value is exactly `end`.
pub(crate) fn linspace(start: f64, end: f64, number: usize) -> Vec<f64> {
    let step = (end - start) / count(number.saturating_sub(1));
    let at = |i: usize| match i {
        0 => start,
        _ if i + 1 == number => end,
        _ => count(i) * step + start,
    };
    (0..number).map(at).collect()
}

/// `np.interp` over the sigmas of all timesteps, held at the ends.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of indices first"
)]
pub(crate) fn sigma_at(timestep: f64, sigmas: &[f64]) -> f64 {
    let last = sigmas.len() - 1;
    let below = (timestep.clamp(0.0, count(last))) as usize;
    let above = (below + 1).min(last);
    let fraction = (timestep - count(below)).clamp(0.0, 1.0);
    (sigmas[above] - sigmas[below]) * fraction + sigmas[below]
}

/// `_sigma_to_t`: the timestep with that noise, interpolated in the logarithm.
pub(crate) fn timestep_of(sigma: f64, log_sigmas: &[f64]) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = log_sigmas.partition_point(|l| *l <= log).saturating_sub(1);
    let below = below.min(log_sigmas.len() - 2);
    let (low, high) = (log_sigmas[below], log_sigmas[below + 1]);
    let fraction = ((low - log) / (low - high)).clamp(0.0, 1.0);
    (1.0 - fraction) * count(below) + fraction * count(below + 1)
}

/// Logarithms of the sigmas of all timesteps, f32 as in diffusers.
pub(crate) fn log_sigmas(sigmas: &[f64]) -> Vec<f64> {
    sigmas.iter().map(|s| to_f32(s.ln())).collect()
}

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
                let level =
                    |x: f64| last + crate::beta_quantile::beta_quantile(1.0 - x, 0.6) * (first - last);
                linspace(0.0, 1.0, steps).into_iter().map(level).collect()
            }
        }
    }
}

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
    /// Checks that every step goes down; only the last may stay where it is.
    fn checked(self, train: usize) -> Result<Self, SchedulerError> {
        let steps = self.timesteps.len();
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
        let mut timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::None);
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

/// Rounds to f32 and back, where diffusers stores f32.
#[expect(clippy::cast_possible_truncation, reason = "the rounding is the purpose")]
pub(crate) fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts of steps are far below 2^52")]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}
