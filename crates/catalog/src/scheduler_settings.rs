//! `[model.scheduler]`: how a model wants to be run, beyond what its own files say.

use pentimento_types::SchedulerKind;

/// How the timesteps of a run are spread over the training steps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestepSpacing {
    /// Evenly, with both ends.
    Linspace,
    /// From the start of each interval.
    Leading,
    /// From the end of each interval, as distilled models want it.
    Trailing,
}

impl TimestepSpacing {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Linspace, Self::Leading, Self::Trailing];

    /// The word in `models.toml`, which is diffusers' `timestep_spacing`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
        }
    }

    /// Reads the word of `models.toml`; None for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word)
    }
}

/// What an entry sets; None leaves it to the checkpoint's own configuration and to the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerSettings {
    /// The scheduler for requests that name none.
    pub kind: Option<SchedulerKind>,
    /// How timesteps are spread.
    pub spacing: Option<TimestepSpacing>,
    /// The timesteps themselves, strictly falling, each below 1000: what a distilled model was trained on.
    pub timesteps: Option<Vec<u32>>,
}

impl SchedulerSettings {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These settings, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            kind: self.kind.or(other.kind),
            spacing: self.spacing.or(other.spacing),
            timesteps: self.timesteps.or_else(|| other.timesteps.clone()),
        }
    }
}
