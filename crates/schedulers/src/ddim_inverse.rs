//! DDIM inversion for img2img: the picture is carried deterministically up to the start level with the model's own
//! predictions, and DDIM brings it down again (Song, Meng & Ermon 2020, arXiv 2010.02502, section 4.3; Dhariwal &
//! Nichol 2021, arXiv 2105.05233, appendix F).
//!
//! Upstream, `schedulers/scheduling_ddim_inverse.py` of diffusers 0.42, only goes up, so the img2img pipeline cannot run
//! it. Our definition is `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its steps first, then those of
//! `scheduling_ddim.py`, twice as many evaluations as steps, and no noise is used.

use candle_core::Tensor;

use crate::config::TimestepSpacing;
use crate::prediction::{PredictionType, weighted_sum};
use crate::schedule::{BetaDefaults, Level, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule, add_noise_at};
use crate::timesteps::{Rounding, count, spaced};
use crate::{NoiseSource, SchedulerError};

#[derive(Debug)]
struct DdimInverse {
    schedule: NoiseSchedule,
    /// Rising for the inversion, then falling.
    timesteps: Vec<f64>,
    /// How far one step goes, in training timesteps.
    stride: f64,
    /// ᾱ of the picture itself, before the first step and after the last.
    picture_alpha_bar: f64,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let all = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let falling = &all[setup.first_step().min(all.len())..];
    let prediction = PredictionType::of(config)?;
    for timestep in falling {
        schedule.check_finite(*timestep, prediction)?;
    }
    let timesteps: Vec<f64> = falling.iter().rev().chain(falling).copied().collect();
    // Noise cannot be derived from a predicted picture at a level without noise.
    let clean_end = config.set_alpha_to_one.unwrap_or(true) && prediction != PredictionType::Sample;
    let rule = DdimInverse {
        stride: count(schedule.len() / setup.steps()),
        picture_alpha_bar: if clean_end {
            1.0
        } else {
            schedule.first_alpha_bar()
        },
        timesteps: timesteps.clone(),
        schedule,
        prediction,
    };
    Ok(Planned {
        timesteps,
        skipped: 0,
        rule: Box::new(rule),
    })
}

impl DdimInverse {
    /// The level one stride below a timestep.
    fn below(&self, timestep: f64) -> Result<Level, SchedulerError> {
        let before = timestep - self.stride;
        Ok(Level::of_alpha_bar(if before >= 0.0 {
            self.schedule.alpha_bar(before)?
        } else {
            self.picture_alpha_bar
        }))
    }
}

impl UpdateRule for DdimInverse {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        add_noise_at(&self.schedule, self.timesteps[index], clean, noise)
    }

    fn start(
        &mut self,
        _index: usize,
        clean: &Tensor,
        _drawn: &Tensor,
        _noise: &mut NoiseSource,
    ) -> Result<Tensor, SchedulerError> {
        Ok(clean.clone())
    }

    /// On the way up the picture carries itself; it is put back on the way down only.
    fn known(&self, index: usize, clean: &Tensor, drawn: &Tensor) -> Result<Option<Tensor>, SchedulerError> {
        if index < self.timesteps.len() / 2 {
            return Ok(None);
        }
        self.add_noise(index, clean, drawn).map(Some)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let Given {
            prediction, latents, ..
        } = given;
        let timestep = self.timesteps[index];
        let high = Level::of_alpha_bar(self.schedule.alpha_bar(timestep)?);
        let low = self.below(timestep)?;
        let (from, to) = if index < self.timesteps.len() / 2 {
            (low, high)
        } else {
            (high, low)
        };
        let clean = self.prediction.clean(prediction, latents, from)?;
        let noise = self.prediction.noise(prediction, latents, from)?;
        Ok(weighted_sum(&[(to.alpha, &clean), (to.std, &noise)])?)
    }
}
