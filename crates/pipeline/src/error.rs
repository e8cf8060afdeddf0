//! What can go wrong between a request and its picture.

use pentimento_models::{ModelError, Precision};
use pentimento_schedulers::SchedulerError;
use pentimento_types::{ErrorKind, HasKind, describe_chain};
use pentimento_weights::WeightsError;

/// An error of loading a checkpoint or of running it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A file of the checkpoint is missing or wrong.
    #[error("checkpoint `{name}` cannot be loaded")]
    Weights {
        /// The checkpoint's name in the catalogue.
        name: String,
        /// What is wrong with which file or tensor.
        #[source]
        source: Box<WeightsError>,
    },
    /// A LoRA cannot be used, with this checkpoint or at all.
    #[error("the LoRA `{name}` cannot be used")]
    Lora {
        /// The LoRA's name in the catalogue.
        name: String,
        /// Where it is, which callers do not see.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<WeightsError>,
    },
    /// A part of the checkpoint describes a network or a tokenizer that cannot be built.
    #[error("checkpoint `{name}` cannot be loaded")]
    Part {
        /// The checkpoint's name in the catalogue.
        name: String,
        /// What is wrong with which part.
        #[source]
        source: Box<ModelError>,
    },
    /// The checkpoint's scheduler configuration cannot be used.
    #[error("checkpoint `{name}` cannot be loaded")]
    SchedulerConfig {
        /// The checkpoint's name in the catalogue.
        name: String,
        /// What is wrong with it.
        #[source]
        source: SchedulerError,
    },
    /// A network refused its inputs, or a forward failed.
    #[error("the model failed")]
    Model(#[from] ModelError),
    /// A scheduler refused the run.
    #[error("the scheduler failed")]
    Scheduler(#[from] SchedulerError),
    /// The task cannot be done with what is asked for beside it.
    #[error("{setting}: {problem}")]
    TaskRefused {
        /// What of the recipe: `scheduler`, `model` or `differential_diffusion`.
        setting: &'static str,
        /// Safe to show.
        problem: String,
    },
    /// A tensor operation failed.
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The source of a catalogue entry cannot be read by this version.
    #[error("checkpoint `{name}` has a source that cannot be loaded: {reason}")]
    UnsupportedSource {
        /// The checkpoint's name in the catalogue.
        name: String,
        /// What would work.
        reason: String,
    },
    /// Images of different sizes were put into one forward.
    #[error("latents of shape {found:?} cannot share a forward with latents of shape {expected:?}")]
    MixedShapes {
        /// Channels, height and width of the first image's latents.
        expected: [usize; 3],
        /// Those of the one that differs.
        found: [usize; 3],
    },
    /// A prompt of more tokens than the server takes.
    #[error("{field} has {found} tokens, and at most {limit} are taken")]
    PromptTooLong {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// Its tokens.
        found: usize,
        /// The setting.
        limit: usize,
    },
    /// A weight in a prompt with which nothing could be computed.
    #[error(
        "{field} has a weight of {weight}, and at most {most} is taken; a bracket that is a letter is written \\("
    )]
    PromptWeight {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// What its brackets make.
        weight: f64,
        /// The strongest.
        most: f32,
    },
    /// A textual inversion that was trained on other text encoders.
    #[error(
        "the embedding `{name}` is for text encoders of width {found:?}, and the checkpoint's has {expected}"
    )]
    EmbeddingWidth {
        /// Its name in the catalogue.
        name: String,
        /// Widths that it has vectors for.
        found: Vec<usize>,
        /// That of the checkpoint's text encoder.
        expected: usize,
    },
    /// The file of a textual inversion cannot be used.
    #[error("the embedding `{name}` cannot be read")]
    Embedding {
        /// Its name in the catalogue.
        name: String,
        /// Its file, for the log.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<WeightsError>,
    },
    /// A VAE that cannot stand in for the checkpoint's own.
    #[error("the VAE `{name}` does not fit the checkpoint: {detail}")]
    VaeUnfit {
        /// Its name in the catalogue.
        name: String,
        /// Found and expected.
        detail: String,
    },
    /// The files of an IP-Adapter or of its image encoder cannot be used.
    #[error("the IP-Adapter `{name}` cannot be used")]
    IpAdapter {
        /// Its name in the catalogue.
        name: String,
        /// Where it is, which callers do not see.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Box<WeightsError>,
    },
    /// An IP-Adapter that is for another base, or that its image encoder does not fit.
    #[error("the IP-Adapter `{name}` does not fit: {detail}")]
    IpAdapterUnfit {
        /// Its name in the catalogue.
        name: String,
        /// Found and expected.
        detail: String,
    },
    /// A preparation was gone on with after one of its slices had failed.
    #[error("the preparation has ended before")]
    Spent,
    /// The network produced NaN or infinity.
    #[error("{scheduler}: evaluation {evaluation} produced NaN or infinity")]
    NotFinite {
        /// The scheduler's diffusers name, or the part that failed.
        scheduler: String,
        /// Which evaluation, counted from 0.
        evaluation: u32,
    },
    /// The autoencoder produced NaN or infinity.
    #[error("the VAE's {part} produced NaN or infinity in {precision}")]
    VaeNotFinite {
        /// `encoder` or `decoder`.
        part: &'static str,
        /// What it computes in: 16 bits have a range that some autoencoders leave.
        precision: Precision,
    },
    /// The parts of a checkpoint do not fit each other.
    #[error("checkpoint `{name}`: {detail}")]
    Mismatch {
        /// The checkpoint's name in the catalogue.
        name: String,
        /// Which two parts, expected and found.
        detail: String,
    },
}

impl PipelineError {
    /// What of a recipe, or of the checkpoint's configuration below it, no run can do, and why: `steps`, `strength`,
    /// `scheduler`, `model`, `differential_diffusion` or a key as diffusers writes it, with a sentence that may be shown. None for every other error.
    #[must_use]
    pub fn refused_setting(&self) -> Option<(&'static str, String)> {
        if let Self::Scheduler(SchedulerError::Run { name, problem }) = self {
            return Some((name, problem.clone()));
        }
        if let Self::TaskRefused { setting, problem } = self {
            return Some((setting, problem.clone()));
        }
        if let Self::Scheduler(SchedulerError::Setting { key, problem }) = self {
            return Some((key, problem.clone()));
        }
        None
    }

    /// The LoRA that is at fault by its name in the catalogue, and a text that may be shown.
    #[must_use]
    pub fn refused_lora(&self) -> Option<(&str, String)> {
        let Self::Lora { name, path, source } = self else {
            return None;
        };
        Some((name, without_path(source, path)))
    }

    /// Which VAE, IP-Adapter or embedding cannot be used, and why, in a sentence that may be shown. None for every other error.
    #[must_use]
    pub fn refused_beside(&self) -> Option<(Beside, &str, String)> {
        if let Self::VaeUnfit { name, detail } = self {
            return Some((Beside::Vae, name, detail.clone()));
        }
        if let Self::IpAdapterUnfit { name, detail } = self {
            return Some((Beside::IpAdapter, name, detail.clone()));
        }
        if let Self::IpAdapter { name, path, source } = self {
            return Some((Beside::IpAdapter, name, without_path(source, path)));
        }
        if let Self::Embedding { name, path, source } = self {
            return Some((Beside::Embedding, name, without_path(source, path)));
        }
        let Self::EmbeddingWidth {
            name,
            found,
            expected,
        } = self
        else {
            return None;
        };
        let reason =
            format!("it is for text encoders of width {found:?}, and the checkpoint's has {expected}");
        Some((Beside::Embedding, name, reason))
    }

    /// Whether an autoencoder has left the range of 16 bits, so that it may do its work in 32.
    #[must_use]
    pub fn is_vae_overflow(&self) -> bool {
        matches!(self, Self::VaeNotFinite { precision, .. } if *precision == Precision::F16)
    }

    /// Whether nothing will run on the device any more.
    #[must_use]
    pub fn is_device_lost(&self) -> bool {
        if let Self::Part { source, .. } = self {
            return source.is_device_lost();
        }
        matches!(self, Self::Model(error) if error.is_device_lost())
    }

    /// Whether the same checkpoint fails again in the same way until somebody changes its files or the catalogue. A file
    /// that could not be read, or that changed meanwhile, may be read at the next try.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Weights { source, .. } => source.is_permanent(),
            Self::Lora { source, .. } | Self::Embedding { source, .. } | Self::IpAdapter { source, .. } => {
                source.is_permanent()
            }
            // A device that is full or lost says nothing about the files.
            Self::Part { source, .. } => !source.is_of_device(),
            Self::SchedulerConfig { .. }
            | Self::UnsupportedSource { .. }
            | Self::Mismatch { .. }
            | Self::PromptTooLong { .. }
            | Self::PromptWeight { .. }
            | Self::TaskRefused { .. }
            | Self::VaeUnfit { .. }
            | Self::IpAdapterUnfit { .. }
            | Self::EmbeddingWidth { .. } => true,
            Self::Model(_)
            | Self::Scheduler(_)
            | Self::Tensor(_)
            | Self::NotFinite { .. }
            | Self::VaeNotFinite { .. }
            | Self::MixedShapes { .. }
            | Self::Spent => false,
        }
    }
}

/// What is named beside a checkpoint and changes none of its weights in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Another VAE.
    Vae,
    /// A textual inversion.
    Embedding,
    /// An IP-Adapter.
    IpAdapter,
}

/// What is wrong with a file, without the place where it is.
fn without_path(source: &WeightsError, path: &str) -> String {
    let text = describe_chain(source);
    let inside = text.replace(&format!("{path}/"), "");
    inside.replace(path, "its file")
}

impl HasKind for PipelineError {
    /// What has a cause says what its cause says.
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Weights { source, .. } => source.kind(),
            Self::Lora { source, .. } | Self::Embedding { source, .. } | Self::IpAdapter { source, .. } => {
                source.kind()
            }
            Self::Model(error) => error.kind(),
            Self::Scheduler(error) => error.kind(),
            Self::Part { source, .. } if source.is_of_device() => source.kind(),
            Self::Part { .. }
            | Self::SchedulerConfig { .. }
            | Self::UnsupportedSource { .. }
            | Self::Mismatch { .. } => ErrorKind::BadModel,
            Self::PromptTooLong { .. }
            | Self::PromptWeight { .. }
            | Self::TaskRefused { .. }
            | Self::VaeUnfit { .. }
            | Self::IpAdapterUnfit { .. }
            | Self::EmbeddingWidth { .. } => ErrorKind::InvalidInput,
            Self::Spent
            | Self::Tensor(_)
            | Self::NotFinite { .. }
            | Self::VaeNotFinite { .. }
            | Self::MixedShapes { .. } => ErrorKind::Internal,
        }
    }
}
