//! Files become named tensors: diffusers folders and single files, safetensors and pickles, on disk or in memory, or seeded random weights.
//!
//! Weights are data: nothing in a file is ever executed, and no size that a file claims is believed before it is
//! checked against the bytes that are there. Every error names the file and the tensor.

mod checkpoint;
mod component;
mod container;
mod embedding_file;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod inspect;
mod ip_adapter;
mod kind;
mod lone_vae;
mod lora;
mod naming;
mod original;
mod progress;
mod seeded;
mod upscaler_file;

pub use checkpoint::Checkpoint;
pub use component::Component;
pub use container::Dtypes;
pub use embedding_file::{Embedding, EmbeddingFile, EncoderSlot};
pub use error::WeightsError;
pub use identity::{FileIdentity, FolderStamp};
pub use inspect::{EmbeddingAbout, WeightsAbout, WeightsKind, kind_of};
pub use ip_adapter::{IpAdapterAbout, IpAdapterFile, IpAdapterKind};
pub use lora::{
    FitLayer, LayerChange, LoraAbout, LoraFile, LoraFit, LoraNetwork, LoraTarget, LowRank, ResolvedLora,
};
pub use original::scheduler_config;
pub use progress::ReadProgress;
pub use upscaler_file::{UpscalerAbout, UpscalerFile};
