//! What a run will be, known before any weights are read: which scheduler, on which noise levels, how many evaluations.
//!
//! It is decided by the same function as the run itself, so what is said here is what happens.

use pentimento_models::Device;
use pentimento_schedulers::{Run, SchedulerConfig, SchedulerPlan, build};
use pentimento_types::{NoiseSpacing, Recipe, SchedulerChoice, SchedulerKind, Size, Task};

use crate::guidance::is_guided;
use crate::task_check::check_task;
use crate::{ModelSource, PipelineError, ResolvedModels};

/// The run of a recipe on a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// The scheduler that runs, also where the recipe leaves it to the checkpoint.
    pub scheduler: SchedulerKind,
    /// How its noise levels are spaced, whether the recipe or the checkpoint says so.
    pub spacing: NoiseSpacing,
    /// Evaluations of each image.
    pub evaluations: u32,
    /// Rows of the UNet's batch that an evaluation takes: two with guidance that the checkpoint does not take as an input.
    pub rows: u32,
    /// The size that the checkpoint was trained on, where it says so: 512x512.
    pub native_size: Option<Size>,
}

impl RunPlan {
    /// Decides the run of `recipe` for a task. Reads two small files of the checkpoint, or the index of a single file.
    ///
    /// # Errors
    /// [`PipelineError::Scheduler`] and [`PipelineError::TaskRefused`] when there is no such run; [`PipelineError::VaeUnfit`],
    /// [`PipelineError::IpAdapterUnfit`] and [`PipelineError::EmbeddingWidth`] when something named beside the checkpoint is for another base; others when the
    /// checkpoint cannot be read.
    pub fn of(models: &ResolvedModels, recipe: &Recipe, task: Task) -> Result<Self, PipelineError> {
        let source = ModelSource::open(models, &Device::Cpu)?;
        source.check_beside(models)?;
        Self::on(&source, recipe, task)
    }

    fn on(checkpoint: &ModelSource, recipe: &Recipe, task: Task) -> Result<Self, PipelineError> {
        checkpoint.family()?;
        let strength = recipe.strength_for(task);
        let plan = scheduler_plan(recipe, strength, &checkpoint.scheduler_config()?)?;
        let unet = checkpoint.unet_config()?;
        check_task(recipe, task, plan.kind(), &unet)?;
        let is_guided = is_guided(recipe, &unet);
        let native_side = unet.sample_size.and_then(|side| u32::try_from(side).ok());
        let native_side = native_side.and_then(|side| side.checked_mul(PIXELS_PER_LATENT));
        Ok(Self {
            native_size: native_side.map(|side| Size {
                width: side,
                height: side,
            }),
            scheduler: plan.kind(),
            spacing: plan.spacing(),
            evaluations: plan.evaluations(),
            rows: if is_guided { 2 } else { 1 },
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

/// Image pixels per latent pixel along one side, in every VAE of Stable Diffusion.
const PIXELS_PER_LATENT: u32 = 8;

/// Decides the run of a recipe at this strength on a checkpoint with this configuration.
pub(crate) fn scheduler_plan(
    recipe: &Recipe,
    strength: f64,
    config: &SchedulerConfig,
) -> Result<SchedulerPlan, PipelineError> {
    let run = Run {
        num_inference_steps: recipe.steps,
        strength,
    };
    Ok(build(&recipe.scheduler, config, run)?)
}

#[cfg(test)]
mod tests {
    use pentimento_weights::Checkpoint;
    use serde_json::{Value, json};

    use super::*;
    use crate::sample_recipe::sample_recipe;

    /// The demo checkpoint, whose UNet takes the guidance scale as an input of so many numbers.
    fn checkpoint(time_cond_proj_dim: Value) -> ModelSource {
        let checkpoint = Checkpoint::in_memory("demo", move |path| {
            let file = pentimento_demo_model::read(path)?.ok()?;
            if path != "unet/config.json" {
                return Some(file);
            }
            let mut config: Value = serde_json::from_slice(&file).ok()?;
            config["time_cond_proj_dim"] = time_cond_proj_dim.clone();
            Some(config.to_string().into_bytes())
        });
        ModelSource::new("demo", checkpoint, &Device::Cpu)
    }

    fn recipe(guidance_scale: f64, kind: SchedulerKind) -> Recipe {
        Recipe {
            steps: 10,
            strength: 1.0,
            guidance_scale,
            scheduler: SchedulerChoice {
                kind: Some(kind),
                ..SchedulerChoice::default()
            },
            ..sample_recipe()
        }
    }

    #[test]
    fn rows_and_evaluations_are_those_of_the_run() {
        let ddim = SchedulerKind::DDIM;
        for (dim, scale, kind, rows, evaluations) in [
            (Value::Null, 7.5, ddim, 2, 10),
            (Value::Null, 1.0, ddim, 1, 10),
            (json!(256), 7.5, ddim, 1, 10),
            (Value::Null, 7.5, SchedulerKind::HeunDiscrete, 2, 19),
        ] {
            let plan =
                RunPlan::on(&checkpoint(dim.clone()), &recipe(scale, kind), Task::ImageToImage).unwrap();
            assert_eq!(
                (plan.rows, plan.evaluations),
                (rows, evaluations),
                "{dim} {scale} {kind:?}"
            );
        }
    }

    #[test]
    fn an_entry_says_how_it_is_run() {
        use pentimento_catalog::{ModelEntry, ModelKind, SchedulerSettings, Source, TimestepSpacing};
        let entry = |kind, scheduler| {
            let demo = Source::Embedded("demo".to_owned());
            std::sync::Arc::new(ModelEntry {
                scheduler,
                ..ModelEntry::new("demo", kind, demo)
            })
        };
        let none = SchedulerSettings::default();
        let asked = Recipe {
            scheduler: SchedulerChoice::default(),
            ..recipe(1.0, SchedulerKind::DDIM)
        };
        let plan = |checkpoint: SchedulerSettings, lora: SchedulerSettings| {
            let models = ResolvedModels {
                loras: vec![(entry(ModelKind::Lora, lora), 1.0)],
                ..ResolvedModels::checkpoint(entry(ModelKind::Checkpoint, checkpoint))
            };
            RunPlan::of(&models, &asked, Task::ImageToImage).unwrap()
        };
        let own = plan(none.clone(), none.clone());
        assert_eq!((own.scheduler, own.evaluations), (SchedulerKind::PNDM, 11));
        let distilled = SchedulerSettings {
            kind: Some(SchedulerKind::TCD),
            timesteps: Some(vec![999, 749, 499, 249]),
            spacing: None,
        };
        let by_lora = plan(none, distilled.clone());
        assert_eq!((by_lora.scheduler, by_lora.evaluations), (SchedulerKind::TCD, 4));
        let euler = SchedulerSettings {
            kind: Some(SchedulerKind::EulerDiscrete),
            spacing: Some(TimestepSpacing::Trailing),
            timesteps: None,
        };
        let both = plan(euler, distilled);
        assert_eq!(
            (both.scheduler, both.evaluations),
            (SchedulerKind::EulerDiscrete, 4)
        );
    }
}
