//! CLIP's tokenizer and encoders, as Stable Diffusion 1.x, 2.x and XL use them, and IP-Adapters the one for images.

mod config;
mod encoder_layer;
mod text;
mod tokenizer;
mod vision;
mod vision_config;

pub use config::ClipTextConfig;
pub use text::{ClipText, RawStates};
pub use tokenizer::ClipTokenizer;
pub use vision::{ClipVision, VisionOutput, VisionPass};
pub use vision_config::ClipVisionConfig;
