//! The networks of Stable Diffusion: CLIP's tokenizer and text encoder, the UNet, the autoencoder.
//!
//! Sizes come from each checkpoint's `config.json`. Every forward is batch invariant: row i of the result is the same,
//! bit for bit, whatever else is in the batch, because every kernel under it is (`pentimento-kernels`). Outside, tensors
//! are in main memory and have PyTorch's order of axes, (B, C, h, w); inside, they are on the network's device and channels
//! are innermost.

mod clip;
mod conditioning;
mod config;
mod error;
mod layers;
mod unet;
mod vae;

pub use clip::{ClipText, ClipTextConfig, ClipTokenizer, RawStates};
pub use conditioning::{Conditioning, ConditioningShape};
pub use error::ModelError;
pub use layers::{
    Device, HostTensor, KernelError, LayerKind, LayerName, LayerPatch, LayerShape, LayerSource, PatchOf,
};
pub use unet::{PreparedConditioning, TextTime, UNet, UNetConfig, UNetInput, guidance_embedding};
pub use vae::{LatentNormalisation, Vae, VaeConfig, VaePass};
