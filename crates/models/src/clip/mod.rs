//! CLIP's tokenizer and text encoder, as Stable Diffusion 1.x and 2.x use them.

mod config;
mod text;
mod tokenizer;

pub use config::ClipTextConfig;
pub use text::ClipText;
pub use tokenizer::ClipTokenizer;
