//! Counts the tokens of a prompt where no model is loaded, so that a prompt that is too long is refused before it waits.

use std::sync::{Arc, OnceLock};

use pentimento_models::ClipTokenizer;
use pentimento_models::Device;

use crate::model_source::embedded_demo;
use crate::prompt::PromptTokens;
use crate::prompt_embedding::{EmbeddingSet, PromptEmbedding};
use crate::{ComponentRole, ModelSource, PipelineError};

/// Three bytes of the longest writing of a letter for each byte of its shortest: normalising never makes more of a text.
const MOST_GROWTH: usize = 3;

/// Counts tokens as CLIP does, whose vocabulary every Stable Diffusion model has. Cheap to clone, and clones share it;
/// the vocabulary is read at the first text that could be too long.
#[derive(Clone, Debug, Default)]
pub struct TokenCounter(Arc<OnceLock<Arc<ClipTokenizer>>>);

impl TokenCounter {
    /// The tokens of `text`, without begin, end and padding: of each embedding its vectors, and what `BREAK` leaves empty.
    ///
    /// # Errors
    /// As [`TokenCounter::check`], but for the limit.
    pub fn count(
        &self,
        field: &'static str,
        text: &str,
        embeddings: &[PromptEmbedding],
    ) -> Result<usize, PipelineError> {
        let tokenizer = self.tokenizer()?;
        let embeddings = EmbeddingSet::new(embeddings);
        let tokens = PromptTokens::read(field, text, tokenizer, embeddings.to_read())?;
        Ok(tokens.count(tokenizer))
    }

    /// How many chunks of 75 tokens `text` takes, at least 1.
    ///
    /// # Errors
    /// As [`TokenCounter::check`], but for the limit.
    pub fn chunks(
        &self,
        field: &'static str,
        text: &str,
        embeddings: &[PromptEmbedding],
    ) -> Result<usize, PipelineError> {
        let tokenizer = self.tokenizer()?;
        let embeddings = EmbeddingSet::new(embeddings);
        let tokens = PromptTokens::read(field, text, tokenizer, embeddings.to_read())?;
        Ok(tokens.chunks(tokenizer)?.len())
    }

    fn tokenizer(&self) -> Result<&Arc<ClipTokenizer>, PipelineError> {
        if let Some(tokenizer) = self.0.get() {
            return Ok(tokenizer);
        }
        let source = ModelSource::new("demo", embedded_demo(), &Device::Cpu);
        let read = Arc::new(source.tokenizer(ComponentRole::Tokenizer)?.0);
        Ok(self.0.get_or_init(|| read))
    }

    /// Refuses a prompt of more than `limit` tokens, or with a weight that cannot be. A text of few bytes that says nothing
    /// but words is not even looked at: each token is at least one byte of it.
    ///
    /// # Errors
    /// [`PipelineError::PromptTooLong`], [`PipelineError::PromptWeight`]; or when the binary's own vocabulary cannot be read,
    /// which is a fault of the build.
    pub fn check(
        &self,
        field: &'static str,
        text: &str,
        embeddings: &[PromptEmbedding],
        limit: usize,
    ) -> Result<(), PipelineError> {
        let is_plain = embeddings.is_empty() && !text.contains(['(', '[']) && !text.contains("BREAK");
        if is_plain && text.len().saturating_mul(MOST_GROWTH) <= limit {
            return Ok(());
        }
        match self.count(field, text, embeddings)? {
            found if found > limit => Err(PipelineError::PromptTooLong { field, found, limit }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(counter: &TokenCounter, text: &str) -> usize {
        counter.count("prompt", text, &[]).unwrap()
    }

    #[test]
    fn long_prompts_are_counted_and_short_ones_are_let_through() {
        let counter = TokenCounter::default();
        let excess = |text: &str, limit: usize| match counter.check("prompt", text, &[], limit) {
            Ok(()) => None,
            Err(PipelineError::PromptTooLong { found, .. }) => Some(found),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(excess("a red house", 33), None);
        assert!(counter.0.get().is_none(), "too short to be looked at");
        assert_eq!(count(&counter, "a red house"), 3);
        assert_eq!(excess("a red house", 3), None);
        assert_eq!(excess("a red house", 2), Some(3));
        let emoji = count(&counter, &"\u{1F600}".repeat(100));
        assert!(emoji >= 90, "hardly any two of them are one token: {emoji}");
    }

    #[test]
    fn chunks_are_counted_as_they_will_be_filled() {
        let counter = TokenCounter::default();
        let chunks = |text: &str| counter.chunks("prompt", text, &[]).unwrap();
        assert_eq!(
            (chunks(""), chunks(&"a ".repeat(75)), chunks(&"a ".repeat(76))),
            (1, 1, 2)
        );
        // What stands behind the last comma moves on, so that the third begins before 150 tokens.
        let moved = format!("{}, {}", "a ".repeat(60), "a ".repeat(85));
        assert_eq!((count(&counter, &moved), chunks(&moved)), (146, 3));
        assert_eq!(chunks("a BREAK house"), 2);
    }

    #[test]
    fn the_writing_of_weights_is_no_token_and_a_break_takes_a_chunk() {
        let counter = TokenCounter::default();
        assert_eq!(count(&counter, "((a) [red] (house:1.25))"), 3);
        assert_eq!(count(&counter, "a BREAK house"), 76);
        let refused = counter.check("prompt", "BREAK BREAK", &[], 100).unwrap_err();
        assert!(
            matches!(refused, PipelineError::PromptTooLong { found: 150, .. }),
            "{refused}"
        );
        let heavy = counter
            .check("prompt", "(a:1e9) (a:99999)", &[], 100)
            .unwrap_err();
        assert!(
            matches!(heavy, PipelineError::PromptWeight { field: "prompt", .. }),
            "{heavy}"
        );
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
            let found = count(&counter, &text);
            assert!(
                found <= MOST_GROWTH * text.len(),
                "{found} tokens of {} bytes",
                text.len()
            );
        }
    }
}
