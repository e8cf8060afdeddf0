//! One model of the catalogue, as `models.toml` describes it.

use std::time::Duration;

use crate::{Availability, Source};

/// What a model is, which decides where a request may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModelKind {
    /// A whole Stable Diffusion model: text encoder, UNet and VAE.
    Checkpoint,
    /// A VAE that replaces the checkpoint's own.
    Vae,
    /// Low-rank changes to the UNet and text encoder.
    Lora,
    /// A textual inversion.
    Embedding,
    /// An image prompt adapter.
    IpAdapter,
    /// A picture filter.
    SafetyChecker,
    /// A language model that lengthens prompts.
    PromptEnhancer,
}

impl ModelKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Checkpoint,
        Self::Vae,
        Self::Lora,
        Self::Embedding,
        Self::IpAdapter,
        Self::SafetyChecker,
        Self::PromptEnhancer,
    ];

    /// The word in `models.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Vae => "vae",
            Self::Lora => "lora",
            Self::Embedding => "embedding",
            Self::IpAdapter => "ip_adapter",
            Self::SafetyChecker => "safety_checker",
            Self::PromptEnhancer => "prompt_enhancer",
        }
    }

    /// Reads the word of `models.toml`; None for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }
}

impl std::fmt::Display for ModelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The family whose architecture a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseModel {
    /// Stable Diffusion 1.x.
    Sd15,
    /// Stable Diffusion 2.x.
    Sd2,
    /// Stable Diffusion XL.
    Sdxl,
}

impl BaseModel {
    /// All families.
    pub const ALL: &'static [Self] = &[Self::Sd15, Self::Sd2, Self::Sdxl];

    /// The word in `models.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sd15 => "sd15",
            Self::Sd2 => "sd2",
            Self::Sdxl => "sdxl",
        }
    }

    /// Reads the word of `models.toml`; None for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|base| base.as_str() == word)
    }
}

impl std::fmt::Display for BaseModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One model: its names and where its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    /// What a caller sends, and what the lists show.
    pub name: String,
    /// Other names that mean the same.
    pub aliases: Vec<String>,
    /// What it is.
    pub kind: ModelKind,
    /// Where its files are.
    pub source: Source,
    /// 64 lower-case hexadecimal digits of the source file; always there for https.
    pub sha256: Option<String>,
    /// Its family; found from the weights when None.
    pub base: Option<BaseModel>,
    /// A part it plays for the server itself; only `lcm` has a meaning.
    pub role: Option<String>,
    /// Loaded at the start, and never evicted.
    pub pinned: bool,
    /// How long it stays in memory when nobody uses it; the server's setting when None.
    pub keep_alive: Option<Duration>,
}

impl ModelEntry {
    /// The role of LCM-LoRAs and of checkpoints that are latent consistency models themselves.
    pub const ROLE_LCM: &'static str = "lcm";

    /// An entry of which no more is said.
    #[must_use]
    pub fn new(name: &str, kind: ModelKind, source: Source) -> Self {
        Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            kind,
            source,
            sha256: None,
            base: None,
            role: None,
            pinned: false,
            keep_alive: None,
        }
    }

    /// Looks now whether the files can be used. Touches the file system for `path` sources only.
    #[must_use]
    pub fn availability(&self) -> Availability {
        self.source.availability()
    }
}
