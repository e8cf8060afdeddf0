//! The parts of a checkpoint. Each is in memory once, whatever number of models is made of it.

use std::fmt;
use std::sync::Arc;

use candle_core::DeviceLocation;
use pentimento_models::{ClipText, ClipTokenizer, UNet, Vae};
use pentimento_weights::{Dtypes, FileIdentity};

/// Which part of a checkpoint a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComponentRole {
    /// Text to token ids.
    Tokenizer,
    /// The same for the second text encoder, of SDXL only.
    Tokenizer2,
    /// Token ids to hidden states.
    TextEncoder,
    /// The second text encoder, of SDXL only.
    TextEncoder2,
    /// The network that denoises.
    UNet,
    /// Between images and latents.
    Vae,
}

impl ComponentRole {
    /// Those of a model with one text encoder, the small ones first: what is wrong with a folder is then found before
    /// gigabytes are read.
    pub const OF_ONE_ENCODER: [Self; 4] = [Self::Tokenizer, Self::TextEncoder, Self::Vae, Self::UNet];
    /// Those of a model with two, the small ones first.
    pub const OF_TWO_ENCODERS: [Self; 6] = [
        Self::Tokenizer,
        Self::Tokenizer2,
        Self::TextEncoder,
        Self::Vae,
        Self::TextEncoder2,
        Self::UNet,
    ];

    /// The folder in the diffusers layout.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Tokenizer => "tokenizer",
            Self::Tokenizer2 => "tokenizer_2",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::UNet => "unet",
            Self::Vae => "vae",
        }
    }
}

impl fmt::Display for ComponentRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// The adapters that are merged into a component's weights, each with its strength. Always empty in this version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PatchSet {}

/// Components with equal keys are the same numbers on the same device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ComponentKey {
    pub(crate) role: ComponentRole,
    pub(crate) files: FileIdentity,
    pub(crate) patches: PatchSet,
    pub(crate) dtypes: Dtypes,
    pub(crate) device: DeviceLocation,
}

impl ComponentKey {
    /// Which part it is.
    #[must_use]
    pub const fn role(&self) -> ComponentRole {
        self.role
    }

    /// About how much memory it will take, in bytes, known before it is loaded; 0 where only loading tells.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        self.files.size_bytes()
    }
}

/// A loaded part. Clones share it.
#[derive(Clone, Debug)]
pub enum Component {
    /// Text to token ids.
    Tokenizer(Arc<ClipTokenizer>),
    /// The same for the second text encoder.
    Tokenizer2(Arc<ClipTokenizer>),
    /// Token ids to hidden states.
    TextEncoder(Arc<ClipText>),
    /// The second text encoder.
    TextEncoder2(Arc<ClipText>),
    /// The network that denoises.
    UNet(Arc<UNet>),
    /// Between images and latents.
    Vae(Arc<Vae>),
}

impl Component {
    /// How many clones there are, this one included.
    #[must_use]
    pub fn holders(&self) -> usize {
        match self {
            Self::Tokenizer(part) | Self::Tokenizer2(part) => Arc::strong_count(part),
            Self::TextEncoder(part) | Self::TextEncoder2(part) => Arc::strong_count(part),
            Self::UNet(part) => Arc::strong_count(part),
            Self::Vae(part) => Arc::strong_count(part),
        }
    }
}
