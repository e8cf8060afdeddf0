//! Improved PNDM for img2img: the linear multistep method of order 4 with lower orders as its beginning (Zhang & Chen
//! 2022, arXiv 2204.13902, section 4, "iPNDM"), on the checkpoint's own noise levels.
//!
//! Upstream, `schedulers/scheduling_ipndm.py` of diffusers 0.42, has levels of its own and no `add_noise`, so the img2img
//! pipeline cannot run it. Our definition is `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its step
//! on the levels of the checkpoint, which its tests compare with.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::config::TimestepSpacing;
use crate::prediction::{PredictionType, weighted_sum};
use crate::schedule::{BetaDefaults, Level, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::timesteps::{Rounding, spaced};

const ORDER: usize = 4;

#[derive(Debug)]
struct Ipndm {
    /// One per step and the clean picture.
    levels: Vec<Level>,
    prediction: PredictionType,
    /// Earlier noise predictions, the latest last.
    history: Vec<Tensor>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let spacing = setup.config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let mut levels = Vec::with_capacity(timesteps.len() + 1);
    for timestep in &timesteps {
        levels.push(Level::of_alpha_bar(schedule.alpha_bar(*timestep)?));
    }
    levels.push(Level::of_alpha_bar(1.0));
    let rule = Ipndm {
        levels,
        prediction: PredictionType::of(setup.config)?,
        history: Vec::with_capacity(ORDER),
    };
    Ok(Planned {
        timesteps,
        skipped: setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ipndm {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        let level = self.levels[index];
        Ok(weighted_sum(&[(level.alpha, clean), (level.std, noise)])?)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let Given {
            prediction, latents, ..
        } = given;
        let (here, there) = (self.levels[index], self.levels[index + 1]);
        let noise = self.prediction.noise(prediction, latents, here)?;
        if self.history.len() == ORDER {
            self.history.remove(0);
        }
        self.history.push(noise);
        let noise = adams_bashforth(&self.history)?;
        // As DDIM: the clean picture from the blended noise, then back to the next level with the same noise.
        let keep = there.alpha / here.alpha;
        Ok(weighted_sum(&[
            (keep, latents),
            (there.std - keep * here.std, &noise),
        ])?)
    }
}

/// The blend of the latest one to four values, the latest last.
pub(crate) fn adams_bashforth(history: &[Tensor]) -> Result<Tensor, SchedulerError> {
    let weights: &[f64] = match history.len() {
        0 | 1 => &[1.0],
        2 => &[1.5, -0.5],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    };
    let terms: Vec<_> = weights.iter().copied().zip(history.iter().rev()).collect();
    Ok(weighted_sum(&terms)?)
}
