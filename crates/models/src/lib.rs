//! The networks of Stable Diffusion: CLIP's tokenizer and encoders, the UNet, the autoencoder, IP-Adapters; and those around
//! them, a classifier, a checker and an upscaler of finished pictures.
//!
//! Sizes come from each checkpoint's `config.json`. Every forward is batch invariant: row i of the result is the same,
//! bit for bit, whatever else is in the batch, because every kernel under it is (`pentimento-kernels`). Outside, tensors
//! are in main memory and have PyTorch's order of axes, (B, C, h, w); inside, they are on the network's device and channels
//! are innermost.

mod clip;
mod concept_checker;
mod conditioning;
mod config;
mod error;
mod gpt2;
mod ip_adapter;
mod keras_file;
mod layers;
mod merges;
mod mobilenet_v2;
mod safety_concepts;
mod unet;
mod upscalers;
mod vae;

pub use clip::{
    ClipText, ClipTextConfig, ClipTokenizer, ClipVision, ClipVisionConfig, RawStates, VisionOutput,
    VisionPass,
};
pub use concept_checker::{ConceptChecker, ConceptCheckerConfig};
pub use conditioning::{Conditioning, ConditioningShape, ImageTokens};
pub use error::ModelError;
pub use gpt2::{Gpt2, Gpt2Config, Gpt2Past, Gpt2Tokenizer};
pub use ip_adapter::{ImageProjectionConfig, IpAdapter, IpAdapterConfig};
pub use layers::{
    Device, DeviceLocation, GpuDevice, HostTensor, KernelError, LayerKind, LayerName, LayerPatch, LayerShape,
    LayerSource, PatchOf, Precision, ProgramMemory, ProgramsId,
};
pub use mobilenet_v2::MobileNetV2;
pub use safety_concepts::{ConceptScores, SafetyConcepts};
pub use unet::{PreparedConditioning, RowNetwork, TextTime, UNet, UNetConfig, UNetInput, guidance_embedding};
pub use upscalers::{CompactConfig, CompactNet, GoesOn, ResidualDense, RrdbConfig, RrdbNet};
pub use vae::{LatentNormalisation, Vae, VaeConfig, VaePass};
