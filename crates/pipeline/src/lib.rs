//! The three acts of Stable Diffusion: prepare, denoise, finish.
//!
//! [`StableDiffusion`] holds one loaded checkpoint and no state of any request.
//! [`DenoiseState`] holds everything one image carries between two evaluations.
//! A forward may mix images of different schedulers, steps, strengths, guidance and seeds, and no image
//! depends on the others: every layer computes each row with the same arithmetic whatever else is in the batch.

mod change_map;
mod checkpoint_facts;
mod clip_pixels;
mod component;
mod conditioning;
mod denoise;
mod embedding_files;
mod error;
mod finish;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guidance;
mod image_prompt;
mod img2img;
mod inpaint;
mod inpainting;
mod latent_range;
mod layer_changes;
mod lora_report;
mod loras;
mod mask;
mod model_source;
mod on_cpu;
mod posterior;
mod preparation;
mod prepare;
mod preview;
mod prompt;
mod prompt_embedding;
mod reference_safety_checker;
mod resample;
mod resolved_models;
mod run_plan;
mod safety_checker;
#[cfg(test)]
mod sample_recipe;
pub mod seeded;
mod stable_diffusion;
mod state;
mod task_check;
mod text_encoder;
mod tokens;
mod unet_rows;
mod upscaler;
mod vae_work;
mod word_model;
mod word_model_source;

pub use checkpoint_facts::CheckpointFacts;
pub use component::{Component, ComponentKey, ComponentRole, PatchSet};
pub use conditioning::RequestConditioning;
pub use embedding_files::{EmbeddingFiles, written_in};
pub use error::{Beside, PipelineError};
pub use finish::{FinishStep, Finishing};
pub use lora_report::LoraReport;
pub use mask::keeps_everything;
pub use model_source::ModelSource;
pub use pentimento_models::{ConditioningShape, Device, GpuDevice, Precision, ProgramMemory, ProgramsId};
pub use pentimento_weights::{FolderStamp, ReadProgress};
pub use preparation::{Preparation, PrepareInput, PrepareStep};
pub use prompt::Triggers;
pub use prompt_embedding::PromptEmbedding;
pub use reference_safety_checker::ReferenceSafetyChecker;
pub use resample::{Filter, Part, resampled, resampled_part};
pub use resolved_models::{IpAdapterEntries, ResolvedModels};
pub use run_plan::RunPlan;
pub use safety_checker::{SafetyChecker, SafetyScores};
pub use stable_diffusion::StableDiffusion;
pub use state::DenoiseState;
pub use text_encoder::TextEncoder;
pub use tokens::TokenCounter;
pub use upscaler::{UpscaleFactor, Upscaler};
pub use word_model::WordModel;
pub use word_model_source::WordModelSource;
