//! The networks of Stable Diffusion: CLIP's tokenizer and text encoder, the UNet, the autoencoder; and two small ones
//! around them, a classifier and an upscaler of finished pictures.
//!
//! Sizes come from each checkpoint's `config.json`. Every forward is batch invariant: row i of the result is the same,
//! bit for bit, whatever else is in the batch, because every kernel under it is (`pentimento-kernels`). Outside, tensors
//! have candle's order of axes, (B, C, h, w); inside, channels are innermost.

mod clip;
mod conditioning;
mod config;
mod error;
mod keras_file;
mod layers;
mod mobilenet_v2;
mod residual_dense;
mod safety_concepts;
mod unet;
mod vae;

pub use clip::{ClipText, ClipTextConfig, ClipTokenizer, RawStates};
pub use conditioning::{Conditioning, ConditioningShape};
pub use error::ModelError;
pub use layers::{LayerKind, LayerName, LayerPatch, LayerShape, PatchOf};
pub use mobilenet_v2::MobileNetV2;
pub use residual_dense::ResidualDense;
pub use safety_concepts::{ConceptScores, SafetyConcepts};
pub use unet::{PreparedConditioning, TextTime, UNet, UNetConfig, UNetInput, guidance_embedding};
pub use vae::{LatentNormalisation, Vae, VaeConfig, VaePass};
