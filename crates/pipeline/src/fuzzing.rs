//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use std::sync::LazyLock;

use pentimento_models::ClipTokenizer;

use crate::PipelineError;
use crate::model_source::ModelSource;
use crate::prompt::{Embeddings, PromptTokens, Token, Triggers};

pub(crate) static TOKENIZER: LazyLock<ClipTokenizer> = LazyLock::new(|| {
    let demo = ModelSource::new(
        "demo",
        crate::model_source::embedded_demo(),
        &pentimento_models::Device::Cpu,
    );
    demo.tokenizer(crate::ComponentRole::Tokenizer)
        .expect("the embedded tokenizer is a good one")
        .0
});

/// A prompt: any text becomes pieces of 77 tokens, and nothing is cut off.
///
/// # Panics
/// When something that must hold for every text does not.
pub fn prompt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let triggers = Triggers::new([("house", 0), ("<x>", 1)]);
    let embeddings = Embeddings {
        triggers: Some(&triggers),
        vectors: &[2, 40],
    };
    for embeddings in [Embeddings::default(), embeddings] {
        let read = PromptTokens::read("prompt", text, &TOKENIZER, embeddings);
        if let Err(PipelineError::PromptWeight { .. }) = read {
            return;
        }
        let tokens = read.expect("no text is refused but for its weights");
        let count = tokens.count(&TOKENIZER);
        let chunks = tokens.chunks(&TOKENIZER).expect("no text is refused");
        let length = TOKENIZER.length();
        assert!(
            chunks
                .iter()
                .all(|chunk| chunk.tokens.len() == length && chunk.weights.len() == length)
        );
        assert!(chunks.len() * (length - 2) >= count, "something was cut off");
        // Neither a comma nor an embedding leaves more of a chunk empty than this.
        assert!(
            chunks.len() <= 1 + count.div_ceil(35),
            "{} chunks of {count} tokens",
            chunks.len()
        );
    }
    if !text.contains(['(', ')', '[', ']', '\\']) && !text.contains("BREAK") {
        let tokens = PromptTokens::read("prompt", text, &TOKENIZER, Embeddings::default());
        let chunks = tokens
            .and_then(|tokens| tokens.chunks(&TOKENIZER))
            .expect("no plain text is refused");
        let expected = TOKENIZER.encode(text).expect("no text is refused");
        if let [chunk] = &chunks[..] {
            let expected: Vec<Token> = expected.into_iter().map(Token::Known).collect();
            assert!(chunk.is_plain() && chunk.tokens == expected);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("prompt", super::prompt);
    }
}
