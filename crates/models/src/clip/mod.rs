//! CLIP's tokenizer and text encoder, as Stable Diffusion 1.x, 2.x and XL use them.

mod config;
mod text;
mod tokenizer;

pub use config::ClipTextConfig;
pub use text::{ClipText, RawStates};
pub use tokenizer::ClipTokenizer;
