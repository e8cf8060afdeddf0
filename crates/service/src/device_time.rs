//! How much of the device a job will take, as far as is known before it runs.

use pentimento_engine::ResolvedModels;
use pentimento_types::{Job, Recipe, Size, Task};

use crate::forecast::Expected;

/// How much of the device each image takes, whatever its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceTime {
    pub(crate) task: Task,
    pub(crate) rows: u32,
    pub(crate) evaluations: u32,
}

impl DeviceTime {
    /// At most, about, where the checkpoint could not be asked, which its load will explain.
    pub(crate) fn unplanned(recipe: &Recipe, task: Task) -> Self {
        Self {
            task,
            rows: if recipe.is_guided() { 2 } else { 1 },
            evaluations: recipe.steps,
        }
    }

    /// What is forecast for a job of which no more is left than its record: as much as the plan of its time said, though how many
    /// evaluations of which size these were is not written down.
    pub(crate) fn found(job: &Job) -> Expected {
        const USUAL_PIXELS: u64 = 512 * 512;
        let recipe = &job.recipe;
        let time = Self::unplanned(recipe, job.inputs.task());
        let one = Size { width: 1, height: 1 };
        let pixels = match job.work {
            _ if recipe.gives_input_back() => 0,
            0 => USUAL_PIXELS,
            work => work / time.work(recipe, one).max(1),
        };
        Expected::new(
            recipe.model.as_str(),
            (pixels, time.rows),
            (recipe.image_count, time.evaluations),
        )
    }

    /// What the job costs in the queue.
    pub(crate) fn work(self, recipe: &Recipe, size: Size) -> u64 {
        recipe.work(size, self.task, (self.rows, self.evaluations))
    }

    /// What is forecast for it.
    pub(crate) fn expected(self, models: &ResolvedModels, recipe: &Recipe, size: Size) -> Expected {
        let pixels = if recipe.gives_input_back() {
            0
        } else {
            size.pixels()
        };
        Expected::new(
            &models.checkpoint.name,
            (pixels, self.rows),
            (recipe.image_count, self.evaluations),
        )
    }
}
