//! The names of the diffusion schedulers, as diffusers and both vendors write them.

use serde::{Deserialize, Serialize};

macro_rules! scheduler_kinds {
    ($($variant:ident),+ $(,)?) => {
        /// The update rules a caller may ask for: the 18 of the vendors' lists, and TCD. The wire name is the variant's name
        /// and `Scheduler`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum SchedulerKind {
            $(#[doc = concat!("diffusers' `", stringify!($variant), "Scheduler`.")] $variant),+
        }

        impl SchedulerKind {
            /// All kinds, in the vendor's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The diffusers class name, `DDIMScheduler` for example.
            #[must_use]
            pub const fn class_name(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(stringify!($variant), "Scheduler")),+
                }
            }
        }
    };
}

scheduler_kinds!(
    DDPM,
    DDIM,
    PNDM,
    LMSDiscrete,
    EulerDiscrete,
    EulerAncestralDiscrete,
    DPMSolverMultistep,
    HeunDiscrete,
    KDPM2Discrete,
    DPMSolverSinglestep,
    KDPM2AncestralDiscrete,
    UniPCMultistep,
    DDIMInverse,
    DEISMultistep,
    IPNDM,
    KarrasVe,
    ScoreSdeVe,
    LCM,
    TCD,
);

impl SchedulerKind {
    /// Reads a diffusers class name, in any case, with or without the word `Scheduler`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let wanted = name.trim().to_ascii_lowercase();
        let wanted = wanted.strip_suffix("scheduler").unwrap_or(&wanted);
        Self::ALL.iter().copied().find(|kind| {
            let class = kind.class_name().to_ascii_lowercase();
            class.strip_suffix("scheduler") == Some(wanted)
        })
    }

    /// Whether Karras spacing of the noise levels means something to it: those that know `use_karras_sigmas` in diffusers,
    /// and the two that we define on such levels.
    #[must_use]
    pub const fn supports_karras_sigmas(self) -> bool {
        match self {
            Self::LMSDiscrete
            | Self::EulerDiscrete
            | Self::DPMSolverMultistep
            | Self::HeunDiscrete
            | Self::KDPM2Discrete
            | Self::DPMSolverSinglestep
            | Self::KDPM2AncestralDiscrete
            | Self::UniPCMultistep
            | Self::DEISMultistep
            | Self::KarrasVe
            | Self::ScoreSdeVe => true,
            Self::DDPM
            | Self::DDIM
            | Self::PNDM
            | Self::EulerAncestralDiscrete
            | Self::DDIMInverse
            | Self::IPNDM
            | Self::LCM
            | Self::TCD => false,
        }
    }
}

impl std::fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.class_name())
    }
}

/// How the noise levels of a run are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSpacing {
    /// As the checkpoint's own scheduler configuration says.
    #[default]
    Checkpoint,
    /// Karras et al. 2022, equation 5, with rho 7.
    Karras,
}

/// The variants of the DPM-Solver family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AlgorithmType {
    /// `dpmsolver`
    DpmSolver,
    /// `dpmsolver++`
    DpmSolverPlusPlus,
    /// `sde-dpmsolver`
    SdeDpmSolver,
    /// `sde-dpmsolver++`
    SdeDpmSolverPlusPlus,
}

/// What a strength below 1 takes away from a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrengthRule {
    /// Steps: the last `int(steps * strength)` of the schedule run, as in diffusers' `StableDiffusionImg2ImgPipeline`.
    #[default]
    FewerSteps,
    /// Steps: the last `int(steps * min(strength, 0.999)) + 1` of the schedule run, as in AUTOMATIC1111's web UI
    /// (`setup_img2img_steps` in `modules/sd_samplers_common.py`). At 0 none does here, as by the other rules.
    OneStepMore,
    /// Noise: all steps run, within the lowest `int(original_steps * strength)` timesteps of the distillation, as in
    /// diffusers' `LatentConsistencyModelImg2ImgPipeline`. Where that many steps do not fit, as many as do.
    /// Other schedulers than LCM know no such schedule and follow the other rule.
    LowerStart,
}

/// Which scheduler a request runs, on top of the checkpoint's own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SchedulerChoice {
    /// None means the one that the checkpoint names.
    pub kind: Option<SchedulerKind>,
    /// Spacing of the noise levels.
    pub spacing: NoiseSpacing,
    /// Only for the DPM-Solver family.
    pub algorithm: Option<AlgorithmType>,
    /// What a strength below 1 means.
    #[serde(default)]
    pub strength_rule: StrengthRule,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_class_name() {
        assert_eq!(SchedulerKind::ALL.len(), 19);
        for kind in SchedulerKind::ALL {
            assert_eq!(SchedulerKind::parse(kind.class_name()), Some(*kind));
            assert_eq!(
                SchedulerKind::parse(&kind.class_name().to_lowercase()),
                Some(*kind)
            );
        }
        assert_eq!(SchedulerKind::parse("DDIM"), Some(SchedulerKind::DDIM));
        assert_eq!(SchedulerKind::parse("Nonsense"), None);
        assert_eq!(SchedulerKind::parse(""), None);
    }
}
