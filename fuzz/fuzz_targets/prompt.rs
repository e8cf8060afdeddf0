//! Prompts: any text becomes pieces of 77 tokens, and nothing is cut off.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pentimento_models::ClipTokenizer;

static TOKENIZER: LazyLock<ClipTokenizer> = LazyLock::new(|| {
    let file = |path| pentimento_demo_model::read(path).map(|found| found.expect("the embedded files are whole"));
    ClipTokenizer::from_files(
        &file("tokenizer/vocab.json").expect("it is embedded"),
        &file("tokenizer/merges.txt").expect("it is embedded"),
        file("tokenizer/tokenizer_config.json").as_deref(),
    )
    .expect("the embedded tokenizer is a good one")
});

fuzz_target!(|text: &str| {
    let tokens = TOKENIZER.tokens(text).expect("no text is refused");
    let chunks = TOKENIZER.chunks(&tokens);
    assert_eq!(chunks.len(), tokens.len().div_ceil(TOKENIZER.length() - 2).max(1));
    assert!(chunks.iter().all(|chunk| chunk.len() == TOKENIZER.length()));
    if chunks.len() == 1 {
        assert_eq!(chunks[0], TOKENIZER.encode(text).expect("no text is refused"));
    }
});
