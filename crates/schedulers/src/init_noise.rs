//! Where a run starts: from an encoded image, or from noise alone as inpainting at strength 1 does.
//!
//! An inpainting run draws its start noise itself, because something else is drawn between that noise and the steps, and
//! because the same noise brings the kept part of the image to every level.

use pentimento_types::SchedulerKind;

use crate::config::{SchedulerConfig, TimestepSpacing};
use crate::error::SchedulerError;
use crate::latents::Latents;
use crate::update_rule::UpdateRule;

/// What the latents are made of before the first evaluation.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// The encoded image with noise at the start level, as image to image starts.
    Image {
        /// Multiplied by the VAE's scaling factor.
        init_latents: &'a Latents,
        /// Standard normal, of the same shape.
        noise: &'a Latents,
    },
    /// Noise alone, with the deviation that the scheduler's first level has (diffusers' `init_noise_sigma`).
    Noise {
        /// Standard normal.
        noise: &'a Latents,
    },
}

/// How large latents of nothing but noise are, diffusers' `init_noise_sigma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitNoiseSigma {
    /// 1: the latents are `alpha * image + std * noise`.
    Unit,
    /// Sigma of the first level: the latents are `image + sigma * noise`.
    Level,
    /// `sqrt(sigma^2 + 1)`: as above, where the schedule leaves out its noisiest levels, so that at its first one the
    /// image still counts.
    LevelAndUnit,
}

impl InitNoiseSigma {
    pub(crate) fn of(kind: SchedulerKind, config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        Ok(match kind {
            SchedulerKind::DDPM
            | SchedulerKind::DDIM
            | SchedulerKind::PNDM
            | SchedulerKind::DPMSolverMultistep
            | SchedulerKind::DPMSolverSinglestep
            | SchedulerKind::UniPCMultistep
            | SchedulerKind::DDIMInverse
            | SchedulerKind::DEISMultistep
            | SchedulerKind::IPNDM
            | SchedulerKind::LCM
            | SchedulerKind::TCD => Self::Unit,
            SchedulerKind::LMSDiscrete
            | SchedulerKind::EulerDiscrete
            | SchedulerKind::EulerAncestralDiscrete
            | SchedulerKind::HeunDiscrete
            | SchedulerKind::KDPM2Discrete
            | SchedulerKind::KDPM2AncestralDiscrete => {
                match config.timestep_spacing(TimestepSpacing::Linspace)? {
                    TimestepSpacing::Linspace | TimestepSpacing::Trailing => Self::Level,
                    TimestepSpacing::Leading => Self::LevelAndUnit,
                }
            }
            SchedulerKind::KarrasVe | SchedulerKind::ScoreSdeVe => Self::Level,
        })
    }
}

/// Sigma of evaluation `index`, computed by noising a zero latent with unit noise.
pub(crate) fn sigma_of(rule: &dyn UpdateRule, index: usize) -> Result<f64, SchedulerError> {
    let zero = Latents::zeros([1, 1, 1]);
    let mut one = zero.clone();
    one.values_mut().fill(1.0);
    let noised = rule.add_noise(index, &zero, &one)?;
    Ok(f64::from(noised.values()[0]))
}
