//! The door for `fuzz/`, which is there when it builds this crate, and in tests, which run its corpus.

use std::sync::LazyLock;

use pentimento_models::ClipTokenizer;

use crate::model_source::ModelSource;

static TOKENIZER: LazyLock<ClipTokenizer> = LazyLock::new(|| {
    let demo = ModelSource::new(
        "demo",
        crate::model_source::embedded_demo(),
        &candle_core::Device::Cpu,
    );
    demo.tokenizer().expect("the embedded tokenizer is a good one").0
});

/// A prompt: any text becomes pieces of 77 tokens, and nothing is cut off.
///
/// # Panics
/// When something that must hold for every text does not.
pub fn prompt(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let tokens = TOKENIZER.tokens(text).expect("no text is refused");
    let chunks = TOKENIZER.chunks(&tokens);
    assert_eq!(chunks.len(), tokens.len().div_ceil(TOKENIZER.length() - 2).max(1));
    assert!(chunks.iter().all(|chunk| chunk.len() == TOKENIZER.length()));
    if chunks.len() == 1 {
        assert_eq!(chunks[0], TOKENIZER.encode(text).expect("no text is refused"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzer_found_holds() {
        pentimento_testkit::each_fuzzed("prompt", super::prompt);
    }
}
