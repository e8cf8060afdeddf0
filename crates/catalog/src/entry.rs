//! One model of the catalogue, as `models.toml` describes it.

use std::time::Duration;

use crate::{Availability, Preset, SchedulerSettings, Source};

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
    /// What sees images for image prompt adapters.
    ImageEncoder,
    /// A picture filter.
    SafetyChecker,
    /// A language model that lengthens prompts.
    PromptEnhancer,
    /// What enlarges pictures.
    Upscaler,
}

impl ModelKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Checkpoint,
        Self::Vae,
        Self::Lora,
        Self::Embedding,
        Self::IpAdapter,
        Self::ImageEncoder,
        Self::SafetyChecker,
        Self::PromptEnhancer,
        Self::Upscaler,
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
            Self::ImageEncoder => "image_encoder",
            Self::SafetyChecker => "safety_checker",
            Self::PromptEnhancer => "prompt_enhancer",
            Self::Upscaler => "upscaler",
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

/// What a UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity of Salimans and Ho 2022 (arXiv 2202.00512).
    Velocity,
}

impl Prediction {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Epsilon, Self::Velocity];

    /// The word in `models.toml`, which is diffusers' `prediction_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::Velocity => "v_prediction",
        }
    }

    /// Reads the word of `models.toml`; None for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word)
    }
}

/// The numbers that a model's networks multiply on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModelPrecision {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
}

impl ModelPrecision {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::F32, Self::Bf16];

    /// The word in `models.toml`, which is that of the setting for the whole server.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Reads the word of `models.toml`; None for any other.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.as_str() == word)
    }
}

/// One model: its names, where its files are, and how it wants to be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelEntry {
    /// What a caller sends, and what the lists show.
    pub name: String,
    /// Other names that mean the same.
    pub aliases: Vec<String>,
    /// What it is.
    pub kind: ModelKind,
    /// Where its files are; those of its checkpoint, for a preset.
    pub source: Source,
    /// 64 lower-case hexadecimal digits of the source file; always there for https.
    pub sha256: Option<String>,
    /// The word that chooses among the files of a repository, `fp16` for example.
    pub variant: Option<String>,
    /// Its family; found from the weights when None.
    pub base: Option<BaseModel>,
    /// A part it plays for the server itself; only `lcm` has a meaning.
    pub role: Option<String>,
    /// What the UNet predicts, where the files do not say it; the base's habit when None.
    pub prediction: Option<Prediction>,
    /// In which numbers it is to be computed on a processor; the server's setting when None.
    pub precision: Option<ModelPrecision>,
    /// The side in pixels of the squares that it was trained on, where it is said: see [`Self::native_side`].
    pub native_size: Option<u32>,
    /// Of a checkpoint: the entry of its own LCM-LoRA; None is the one of its base.
    pub lcm_lora: Option<String>,
    /// How it wants to be run.
    pub scheduler: SchedulerSettings,
    /// Of an IP-Adapter: the entry of its image encoder; None is the one that lies beside its file.
    pub image_encoder: Option<String>,
    /// What is used together with the checkpoint under this name.
    pub preset: Option<Preset>,
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
            variant: None,
            base: None,
            role: None,
            prediction: None,
            precision: None,
            native_size: None,
            lcm_lora: None,
            scheduler: SchedulerSettings::default(),
            image_encoder: None,
            preset: None,
            pinned: false,
            keep_alive: None,
        }
    }

    /// Entries with the same text here have the same files, by which work on these can be told apart.
    #[must_use]
    pub fn files_key(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let (variant, sha256) = (part(&self.variant), part(&self.sha256));
        format!("{} {variant} {sha256} {}", self.kind, self.source)
    }

    /// The side in pixels of the squares that it was trained on, where its entry or its source says it. A request that leaves the
    /// size open gets pictures of at most so many pixels then, in the proportions of its own.
    #[must_use]
    pub fn native_side(&self) -> Option<u32> {
        self.native_size.or_else(|| self.source.native_side())
    }

    /// Looks now whether the files can be used. Touches the file system for `path` sources only.
    #[must_use]
    pub fn availability(&self) -> Availability {
        self.source.availability()
    }
}
