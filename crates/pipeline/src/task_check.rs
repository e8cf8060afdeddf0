//! What a task cannot be combined with, found before anything is loaded and again before anything is computed.

use pentimento_models::UNetConfig;
use pentimento_types::{Recipe, SchedulerKind, Task};

use crate::PipelineError;

const FIELD: &str = "differential_diffusion";

/// Refuses what the task or its mask has no meaning with.
///
/// A UNet with channels for a mask does text to image as diffusers' `StableDiffusionInpaintPipeline` at strength 1 with
/// everything painted, which depends on no image either.
pub(crate) fn check_task(
    recipe: &Recipe,
    task: Task,
    kind: SchedulerKind,
    unet: &UNetConfig,
) -> Result<(), PipelineError> {
    let refused = |setting, problem: String| Err(PipelineError::TaskRefused { setting, problem });
    let inverts = kind == SchedulerKind::DDIMInverse;
    if task == Task::TextToImage && inverts {
        let problem = format!(
            "{kind} inverts the picture to start from, and text to image has none; take another scheduler, DDIM for example"
        );
        return refused("scheduler", problem);
    }
    if !recipe.differential_diffusion {
        return Ok(());
    }
    if task != Task::Inpainting {
        return refused(
            FIELD,
            "needs a mask, whose grey says how much each pixel may change".to_owned(),
        );
    }
    if inverts {
        let problem = format!(
            "{kind} goes up to the start level first, where nothing can be let go step by step; take another scheduler, DDIM for \
             example"
        );
        return refused(FIELD, problem);
    }
    if unet.in_channels > unet.out_channels {
        let problem = "this checkpoint is for inpainting and takes a mask of black and white itself; take an ordinary \
                       checkpoint, or switch it off";
        return refused(FIELD, problem.to_owned());
    }
    Ok(())
}
