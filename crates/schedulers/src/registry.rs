//! From a request's choice and a checkpoint's configuration to a plan. The only list of schedulers.

use pentimento_types::{NoiseSpacing, SchedulerChoice, SchedulerKind};

use crate::{Run, SchedulerConfig, SchedulerError, SchedulerPlan};

/// Decides a whole run before any tensor exists.
///
/// # Errors
/// When the run is out of range, when the configuration asks for something impossible, or when the scheduler is not
/// supported.
pub fn build(
    choice: &SchedulerChoice,
    config: &SchedulerConfig,
    run: Run,
) -> Result<SchedulerPlan, SchedulerError> {
    let kind = match (choice.kind, config.own_kind(), config.class_name.as_deref()) {
        (Some(kind), _, _) | (None, Some(kind), _) => kind,
        // diffusers refuses a folder without a scheduler; PNDM is what Stable Diffusion was published with.
        (None, None, None) => SchedulerKind::PNDM,
        (None, None, Some(other)) => return Err(crate::config::unknown("_class_name", other)),
    };
    run.check()?;
    let _ = NoiseSpacing::Karras;
    Err(SchedulerError::NotSupported(kind))
}

impl Run {
    fn check(self) -> Result<(), SchedulerError> {
        let wrong = |name, problem: String| Err(SchedulerError::Run { name, problem });
        if !(0.0..=1.0).contains(&self.strength) {
            return wrong("strength", format!("{} is not between 0 and 1", self.strength));
        }
        if self.steps == 0 {
            return wrong("steps", "there must be at least one".to_owned());
        }
        Ok(())
    }

    /// How many steps at the end of the schedule run.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "Python's int() on a product between 0 and the number of steps"
    )]
    pub(crate) fn last_steps(self) -> usize {
        let wanted = ((f64::from(self.steps) * self.strength) as u32).min(self.steps);
        // diffusers fails when the product is below 1; a caller who asked for some change gets one step of it.
        let wanted = if wanted == 0 && self.strength > 0.0 {
            1
        } else {
            wanted
        };
        wanted as usize
    }

    /// The first step that runs.
    pub(crate) fn first_step(self) -> usize {
        self.steps as usize - self.last_steps()
    }
}
