//! How long a run is, and everything else that its schedule is made from.

use pentimento_types::{AlgorithmType, StrengthRule};

use crate::config::SchedulerConfig;

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Steps of the whole schedule, at least 1.
    pub num_inference_steps: u32,
    /// How far from the image the run starts, 0 to 1. By [`StrengthRule::FewerSteps`] the last
    /// `min(int(num_inference_steps * strength), num_inference_steps)` steps run.
    pub strength: f64,
}

impl Run {
    /// How many steps at the end of the schedule run, diffusers' `init_timestep`. The rule for a lower start counts as that for
    /// fewer steps.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "Python's int() on a product between 0 and the number of steps"
    )]
    pub(crate) fn last_steps(self, rule: StrengthRule) -> usize {
        if self.strength <= 0.0 {
            return 0;
        }
        let all = self.num_inference_steps;
        let wanted = match rule {
            // diffusers fails when the product is below 1; a caller who asked for some change gets one step of it.
            StrengthRule::FewerSteps | StrengthRule::LowerStart => {
                ((f64::from(all) * self.strength) as u32).max(1)
            }
            StrengthRule::OneStepMore => (f64::from(all) * self.strength.min(0.999)) as u32 + 1,
        };
        wanted.min(all) as usize
    }
}

/// What a scheduler's schedule and update rule are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) run: Run,
    /// The request asks for Karras spacing; the configuration may ask for it too.
    pub(crate) karras: bool,
    pub(crate) algorithm: Option<AlgorithmType>,
    pub(crate) strength_rule: StrengthRule,
    /// The timesteps of the run, where they are not spaced.
    pub(crate) fixed: Option<&'a [u32]>,
}

impl Setup<'_> {
    /// The fixed timesteps, or those that `spaced` makes.
    pub(crate) fn timesteps_or(&self, spaced: impl FnOnce() -> Vec<f64>) -> Vec<f64> {
        match self.fixed {
            Some(fixed) => fixed.iter().copied().map(f64::from).collect(),
            None => spaced(),
        }
    }

    /// Steps of the whole schedule.
    pub(crate) const fn steps(&self) -> usize {
        self.run.num_inference_steps as usize
    }

    /// The first step that runs, diffusers' `t_start`.
    pub(crate) fn first_step(&self) -> usize {
        self.steps() - self.run.last_steps(self.strength_rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(rule: StrengthRule, num_inference_steps: u32, strength: f64) -> usize {
        let run = Run {
            num_inference_steps,
            strength,
        };
        run.last_steps(rule)
    }

    #[test]
    fn each_rule_counts_steps_as_its_program_does() {
        // A1111: t_enc = int(min(0.75, 0.999) * 20), and t_enc + 1 steps run.
        for (strength, fewer, one_more) in [
            (0.0, 0, 0),
            (0.01, 1, 1),
            (0.5, 10, 11),
            (0.75, 15, 16),
            (1.0, 20, 20),
        ] {
            assert_eq!(steps(StrengthRule::FewerSteps, 20, strength), fewer, "{strength}");
            assert_eq!(
                steps(StrengthRule::OneStepMore, 20, strength),
                one_more,
                "{strength}"
            );
        }
        assert_eq!(steps(StrengthRule::OneStepMore, 1, 0.3), 1);
        assert_eq!(steps(StrengthRule::OneStepMore, 4, 0.999), 4);
    }
}
