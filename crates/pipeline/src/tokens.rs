//! Counts the tokens of a prompt where no model is loaded, so that a prompt that is too long is refused before it waits.

use std::sync::{Arc, OnceLock};

use candle_core::Device;
use pentimento_models::ClipTokenizer;

use crate::model_source::embedded_demo;
use crate::{ComponentRole, ModelSource, PipelineError};

/// Three bytes of the longest writing of a letter for each byte of its shortest: normalising never makes more of a text.
const MOST_GROWTH: usize = 3;

/// Counts tokens as CLIP does, whose vocabulary every Stable Diffusion model has. Cheap to clone, and clones share it;
/// the vocabulary is read at the first text that could be too long.
#[derive(Clone, Debug, Default)]
pub struct TokenCounter(Arc<OnceLock<Arc<ClipTokenizer>>>);

impl TokenCounter {
    /// The tokens of `text`, without begin, end and padding.
    ///
    /// # Errors
    /// When the binary's own vocabulary cannot be read, which is a fault of the build.
    pub fn count(&self, text: &str) -> Result<usize, PipelineError> {
        let tokenizer = if let Some(tokenizer) = self.0.get() {
            tokenizer
        } else {
            let source = ModelSource::new("demo", embedded_demo(), &Device::Cpu);
            let read = Arc::new(source.tokenizer(ComponentRole::Tokenizer)?.0);
            self.0.get_or_init(|| read)
        };
        Ok(tokenizer.tokens(text)?.len())
    }

    /// The tokens of `text` when they are more than `limit`. A text of few bytes is not even looked at: each token is at
    /// least one byte of it.
    ///
    /// # Errors
    /// As [`TokenCounter::count`].
    pub fn excess(&self, text: &str, limit: usize) -> Result<Option<usize>, PipelineError> {
        if text.len().saturating_mul(MOST_GROWTH) <= limit {
            return Ok(None);
        }
        Ok(Some(self.count(text)?).filter(|found| *found > limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_prompts_are_counted_and_short_ones_are_let_through() {
        let counter = TokenCounter::default();
        assert_eq!(counter.excess("a red house", 33).unwrap(), None);
        assert!(counter.0.get().is_none(), "too short to be looked at");
        assert_eq!(counter.count("a red house").unwrap(), 3);
        assert_eq!(counter.excess("a red house", 3).unwrap(), None);
        assert_eq!(counter.excess("a red house", 2).unwrap(), Some(3));
        let emoji = counter.count(&"\u{1F600}".repeat(100)).unwrap();
        assert!(emoji >= 90, "hardly any two of them are one token: {emoji}");
    }

    #[test]
    fn no_text_has_more_tokens_than_the_bound_says() {
        let counter = TokenCounter::default();
        // Letters whose normal form is longer than they are, and bytes that are tokens of their own.
        for text in [
            "\u{0958}",
            "\u{1D160}",
            "\u{0130}",
            "\u{FB2C}",
            "\u{10FFFF}",
            "'",
            "\u{0344}",
        ] {
            let text = text.repeat(50);
            let found = counter.count(&text).unwrap();
            assert!(
                found <= MOST_GROWTH * text.len(),
                "{found} tokens of {} bytes",
                text.len()
            );
        }
    }
}
