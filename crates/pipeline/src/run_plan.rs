//! What a run will be, known before any weights are read: which scheduler, on which noise levels, how many evaluations.
//!
//! It is decided by the same function as the run itself, so what is said here is what happens.

use candle_core::Device;
use pentimento_catalog::ModelEntry;
use pentimento_schedulers::{Run, SchedulerConfig, SchedulerPlan, build};
use pentimento_types::{NoiseSpacing, Recipe, SchedulerChoice, SchedulerKind};

use crate::{CheckpointSource, PipelineError};

/// The run of a recipe on a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// The scheduler that runs, also where the recipe leaves it to the checkpoint.
    pub scheduler: SchedulerKind,
    /// How its noise levels are spaced, whether the recipe or the checkpoint says so.
    pub spacing: NoiseSpacing,
    /// Evaluations of each image.
    pub evaluations: u32,
}

impl RunPlan {
    /// Decides the run of `recipe`. Reads one small file of the checkpoint.
    ///
    /// # Errors
    /// [`PipelineError::Scheduler`] when there is no such run; others when the checkpoint cannot be read.
    pub fn of(entry: &ModelEntry, recipe: &Recipe) -> Result<Self, PipelineError> {
        let config = CheckpointSource::open(entry, &Device::Cpu)?.scheduler_config()?;
        let plan = scheduler_plan(recipe, &config)?;
        Ok(Self {
            scheduler: plan.kind(),
            spacing: plan.spacing(),
            evaluations: plan.evaluations(),
        })
    }

    /// The recipe's choice with nothing left to the checkpoint: the same run under the names of what runs.
    #[must_use]
    pub const fn named(&self, choice: SchedulerChoice) -> SchedulerChoice {
        SchedulerChoice {
            kind: Some(self.scheduler),
            spacing: self.spacing,
            ..choice
        }
    }
}

/// Decides the run of a recipe on a checkpoint with this configuration.
pub(crate) fn scheduler_plan(
    recipe: &Recipe,
    config: &SchedulerConfig,
) -> Result<SchedulerPlan, PipelineError> {
    let run = Run {
        num_inference_steps: recipe.steps,
        strength: recipe.strength,
    };
    Ok(build(&recipe.scheduler, config, run)?)
}
