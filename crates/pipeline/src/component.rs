//! The parts of a checkpoint. Each is in memory once, whatever number of models is made of it.

use std::fmt;
use std::sync::Arc;

use pentimento_models::{ClipTokenizer, ClipVision, DeviceLocation, IpAdapter, UNet, Vae};
use pentimento_weights::{Dtypes, FileIdentity};

use crate::text_encoder::TextEncoder;
use crate::word_model::WordModel;

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
    /// Images to tokens beside the text, of a model with an IP-Adapter only.
    IpAdapter,
    /// What sees images for it.
    ImageEncoder,
    /// A language model that goes on with a prompt; of no checkpoint.
    PromptEnhancer,
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
    /// Those that an IP-Adapter adds, which change none of the others.
    pub const OF_IP_ADAPTER: [Self; 2] = [Self::IpAdapter, Self::ImageEncoder];

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
            Self::IpAdapter => "ip_adapter",
            Self::ImageEncoder => "image_encoder",
            Self::PromptEnhancer => "prompt_enhancer",
        }
    }
}

impl fmt::Display for ComponentRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}

/// A LoRA with its strength.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Patch {
    files: FileIdentity,
    /// The bits of an f64.
    strength: u64,
}

impl Patch {
    pub(crate) const fn new(files: FileIdentity, strength: f64) -> Self {
        Self {
            files,
            strength: strength.to_bits(),
        }
    }
}

/// The LoRAs that change a component, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchSet {
    /// Those that are in its weights from the start: the LCM-LoRA.
    pub(crate) merged: Vec<Patch>,
    /// About what they add to the bytes of the files.
    pub(crate) merged_bytes: u64,
    /// Those that make it a copy of the component without them, with which it shares what they leave as it is.
    pub(crate) beside: Vec<Patch>,
    /// About what the copy holds by itself.
    pub(crate) beside_bytes: u64,
}

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

    /// The component that this one is a copy of, with some layers changed, and that has to be in memory first.
    #[must_use]
    pub fn base(&self) -> Option<Self> {
        (!self.patches.beside.is_empty()).then(|| Self {
            patches: PatchSet {
                beside: Vec::new(),
                beside_bytes: 0,
                ..self.patches.clone()
            },
            ..self.clone()
        })
    }

    /// The same component where it computes in f32, whatever the device does elsewhere.
    #[must_use]
    pub fn in_f32(&self) -> Self {
        Self {
            device: self.device.in_f32(),
            ..self.clone()
        }
    }

    /// About what LoRAs in its weights add to the bytes of the files.
    pub(crate) const fn merged_bytes(&self) -> u64 {
        self.patches.merged_bytes
    }

    /// About how much memory it will take beside its base, in bytes, by the size of its files; 0 where only loading tells.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        if self.patches.beside.is_empty() {
            self.files.size_bytes().saturating_add(self.patches.merged_bytes)
        } else {
            self.patches.beside_bytes
        }
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
    TextEncoder(Arc<TextEncoder>),
    /// The second text encoder.
    TextEncoder2(Arc<TextEncoder>),
    /// The network that denoises.
    UNet(Arc<UNet>),
    /// Between images and latents.
    Vae(Arc<Vae>),
    /// Images to tokens beside the text.
    IpAdapter(Arc<IpAdapter>),
    /// What sees images for it.
    ImageEncoder(Arc<ClipVision>),
    /// Goes on with a prompt.
    PromptEnhancer(Arc<WordModel>),
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
            Self::IpAdapter(part) => Arc::strong_count(part),
            Self::ImageEncoder(part) => Arc::strong_count(part),
            Self::PromptEnhancer(part) => Arc::strong_count(part),
        }
    }
}
