//! What a task cannot be combined with, found before anything is loaded and again before anything is computed.

use pentimento_models::UNetConfig;
use pentimento_types::{Recipe, SchedulerKind, Task};

use crate::PipelineError;

/// Refuses a scheduler that the task has no image for.
///
/// A UNet with channels for a mask does text to image as diffusers' `StableDiffusionInpaintPipeline` at strength 1 with
/// everything painted, which depends on no image either.
pub(crate) fn check_task(
    _recipe: &Recipe,
    task: Task,
    kind: SchedulerKind,
    _unet: &UNetConfig,
) -> Result<(), PipelineError> {
    if task == Task::TextToImage && kind == SchedulerKind::DDIMInverse {
        return Err(PipelineError::TaskRefused {
            setting: "scheduler",
            problem: format!(
                "{kind} inverts the picture to start from, and text to image has none; take another scheduler, DDIM for example"
            ),
        });
    }
    Ok(())
}
