//! Prompts: A1111's writing, the words of textual inversions, and chunks of 75 tokens.
//!
//! A pure function of the texts and a vocabulary; no weights are needed for it. `docs/prompts.md` has the arithmetic.

mod emphasis;
mod syntax;
mod tokens;
mod triggers;

pub(crate) use emphasis::weighted;
pub(crate) use tokens::{Chunk, Embeddings, PromptTokens, Token};
pub use triggers::Triggers;
