//! The networks of Stable Diffusion: CLIP's tokenizer and encoders, the UNet, the autoencoder, IP-Adapters.
//!
//! Sizes come from each checkpoint's `config.json`. Every forward is batch invariant: row i of the result is the same,
//! bit for bit, whatever else is in the batch, because every kernel under it is (`pentimento-kernels`). Outside, tensors
//! have candle's order of axes, (B, C, h, w); inside, channels are innermost.

mod clip;
mod conditioning;
mod config;
mod error;
mod ip_adapter;
mod layers;
mod unet;
mod vae;

pub use clip::{
    ClipText, ClipTextConfig, ClipTokenizer, ClipVision, ClipVisionConfig, RawStates, VisionOutput,
    VisionPass,
};
pub use conditioning::{Conditioning, ConditioningShape, ImageTokens};
pub use error::ModelError;
pub use ip_adapter::{ImageProjectionConfig, IpAdapter, IpAdapterConfig};
pub use layers::{LayerKind, LayerName, LayerPatch, LayerShape, PatchOf};
pub use unet::{PreparedConditioning, TextTime, UNet, UNetConfig, UNetInput, guidance_embedding};
pub use vae::{LatentNormalisation, Vae, VaeConfig, VaePass};
