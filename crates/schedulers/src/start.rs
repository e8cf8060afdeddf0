//! Where a run starts: from a picture, or from noise alone as inpainting at strength 1 does.
//!
//! A run that knows a part of its picture draws its start noise itself, because something else is drawn between that
//! noise and the steps, and because the same noise brings the known part to every level.

use candle_core::Tensor;
use pentimento_types::SchedulerKind;

use crate::config::TimestepSpacing;
use crate::scheduler::{Steps, UpdateRule};
use crate::{NoiseSource, Scheduler, SchedulerConfig, SchedulerError, SchedulerPlan};

/// What the latents are made of before the first evaluation.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// The encoded picture with noise at the start level, as image to image starts.
    Picture {
        /// `(1, C, h, w)`, multiplied by the VAE's scaling factor.
        clean: &'a Tensor,
        /// Standard normal, of the same shape.
        drawn: &'a Tensor,
    },
    /// Noise alone, with the deviation that the scheduler's first level has (diffusers' `init_noise_sigma`).
    Noise {
        /// Standard normal, `(1, C, h, w)`.
        drawn: &'a Tensor,
    },
}

impl SchedulerPlan {
    /// Starts from latents whose noise has been drawn already; `noise` is for what is drawn afterwards.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn begin_from(
        self,
        start: Start<'_>,
        noise: NoiseSource,
    ) -> Result<Box<dyn Scheduler>, SchedulerError> {
        let (mut noise, mut rule, index) = (noise, self.rule, self.begin);
        let latents = match start {
            Start::Picture { clean, .. } if index == self.timesteps.len() => clean.clone(),
            Start::Picture { clean, drawn } => rule.start(index, clean, drawn, &mut noise)?,
            Start::Noise { drawn } => match self.noise_alone {
                NoiseAlone::Unit => drawn.clone(),
                NoiseAlone::Level => rule.start(index, &drawn.zeros_like()?, drawn, &mut noise)?,
                NoiseAlone::LevelAndUnit => {
                    let level = level_of(rule.as_ref(), index, drawn)?;
                    (drawn * level.mul_add(level, 1.0).sqrt())?
                }
            },
        };
        Ok(Box::new(Steps {
            rule,
            timesteps: self.timesteps,
            index,
            latents,
            noise,
        }))
    }

    /// Whether a run always starts from its picture, at strength 1 too, because it inverts it.
    #[must_use]
    pub fn inverts_picture(&self) -> bool {
        self.kind == SchedulerKind::DDIMInverse
    }
}

/// How large latents of nothing but noise are, diffusers' `init_noise_sigma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoiseAlone {
    /// 1: the latents are `alpha * clean + std * noise`.
    Unit,
    /// Sigma of the first level: the latents are `clean + sigma * noise`.
    Level,
    /// `sqrt(sigma^2 + 1)`: as above, where the schedule leaves out its noisiest levels, so that at its first one the
    /// picture still counts.
    LevelAndUnit,
}

impl NoiseAlone {
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
            | SchedulerKind::LCM => Self::Unit,
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

/// Sigma of evaluation `index`, read off a picture of one black pixel.
fn level_of(rule: &dyn UpdateRule, index: usize, like: &Tensor) -> Result<f64, SchedulerError> {
    let one = Tensor::new(1.0_f32, like.device())?;
    let noised = rule.add_noise(index, &one.zeros_like()?, &one)?;
    Ok(f64::from(noised.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use pentimento_types::SchedulerChoice;

    use super::*;
    use crate::{Run, build};

    /// `init_noise_sigma` after `set_timesteps(7)` with linspace, leading and trailing spacing, printed by diffusers
    /// 0.42 for `beta_start` 0.00085, `beta_end` 0.012, `beta_schedule` scaled_linear, `steps_offset` 1.
    const SIGMA: [f64; 3] = [
        14.614_646_911_621_094,
        6.646_311_759_948_730_5,
        14.614_646_911_621_094,
    ];

    fn deviation(kind: SchedulerKind, spacing: &str) -> f64 {
        let json = format!(
            r#"{{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                "timestep_spacing": "{spacing}"}}"#
        );
        let config = SchedulerConfig::from_json(json.as_bytes()).unwrap();
        let choice = SchedulerChoice {
            kind: Some(kind),
            ..SchedulerChoice::default()
        };
        let run = Run {
            steps: 7,
            strength: 1.0,
        };
        let ones = Tensor::ones((1, 4, 2, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let plan = build(&choice, &config, run).unwrap();
        let scheduler = plan
            .begin_from(Start::Noise { drawn: &ones }, NoiseSource::new(0))
            .unwrap();
        let values = scheduler
            .latents()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert!(values.iter().all(|v| v.to_bits() == values[0].to_bits()));
        f64::from(values[0])
    }

    #[test]
    fn noise_alone_is_as_large_as_in_diffusers() {
        use SchedulerKind::{
            DDIM, DDPM, DEISMultistep, DPMSolverMultistep, DPMSolverSinglestep, EulerAncestralDiscrete,
            EulerDiscrete, HeunDiscrete, KDPM2AncestralDiscrete, KDPM2Discrete, LCM, LMSDiscrete, PNDM,
            UniPCMultistep,
        };
        for (spacing, sigma) in ["linspace", "leading", "trailing"].into_iter().zip(SIGMA) {
            for kind in [
                LMSDiscrete,
                EulerDiscrete,
                EulerAncestralDiscrete,
                HeunDiscrete,
                KDPM2Discrete,
                KDPM2AncestralDiscrete,
            ] {
                let found = deviation(kind, spacing);
                assert!(
                    (found - sigma).abs() < 1e-5,
                    "{kind} {spacing}: {found} is not {sigma}"
                );
            }
            for kind in [
                DDPM,
                DDIM,
                PNDM,
                DPMSolverMultistep,
                DPMSolverSinglestep,
                UniPCMultistep,
                DEISMultistep,
                LCM,
            ] {
                assert_eq!(deviation(kind, spacing), 1.0, "{kind} {spacing}");
            }
        }
    }

    /// Known latents at the last level are the picture, and before that they are noisier than it.
    #[test]
    fn every_scheduler_brings_a_known_picture_to_every_level() {
        let config = SchedulerConfig::from_json(b"{}").unwrap();
        for kind in SchedulerKind::ALL {
            let choice = SchedulerChoice {
                kind: Some(*kind),
                ..SchedulerChoice::default()
            };
            let run = Run {
                steps: 4,
                strength: 0.8,
            };
            let clean = NoiseSource::new(1).normal(&[1, 4, 2, 3]).unwrap();
            let drawn = NoiseSource::new(2).normal(&[1, 4, 2, 3]).unwrap();
            let start = Start::Picture {
                clean: &clean,
                drawn: &drawn,
            };
            let plan = build(&choice, &config, run).unwrap();
            let mut scheduler = plan.begin_from(start, NoiseSource::new(3)).unwrap();
            let mut put_back = 0;
            while scheduler.next_evaluation().unwrap().is_some() {
                scheduler.advance(&drawn).unwrap();
                if let Some(known) = scheduler.known(&clean, &drawn).unwrap() {
                    assert_eq!(known.dims(), clean.dims(), "{kind}");
                    scheduler.replace_latents(known).unwrap();
                    put_back += 1;
                }
            }
            assert!(put_back >= 3, "{kind}");
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(scheduler.latents()), values(&clean), "{kind}");
            let wrong = clean.narrow(3, 0, 2).unwrap();
            assert!(scheduler.replace_latents(wrong).is_err(), "{kind}");
        }
    }
}
