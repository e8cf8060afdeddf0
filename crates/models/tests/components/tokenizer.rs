//! Token ids against transformers' `CLIPTokenizer`.

use pentimento_models::ClipTokenizer;
use pentimento_testkit::Golden;

use crate::support::{tiny, tokenizer};

#[test]
fn ids_equal_transformers_for_hostile_texts() {
    let golden = Golden::open("components/tokenizer.safetensors");
    let texts = golden.about()["texts"].as_array().unwrap();
    let expected: Vec<Vec<i64>> = golden.tensor("ids").to_vec2().unwrap();
    assert_eq!(texts.len(), expected.len());
    let tokenizer = tokenizer();
    for (text, expected) in texts.iter().zip(expected) {
        let text = text.as_str().unwrap();
        let found: Vec<i64> = tokenizer
            .encode(text)
            .unwrap()
            .into_iter()
            .map(i64::from)
            .collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn a_long_text_takes_linear_time() {
    let tokenizer = tokenizer();
    // Half a second would be a thousand times the time of a quadratic algorithm's first kilobyte; the assertion is on
    // the result, the test's own time limit on the rest.
    for text in [
        "a".repeat(100_000),
        "cat, ".repeat(20_000),
        "\u{0301}".repeat(50_000),
        " ".repeat(100_000),
    ] {
        assert_eq!(tokenizer.encode(&text).unwrap().len(), 77);
    }
}

#[test]
fn tokens_are_the_middle_of_the_ids() {
    let tokenizer = tokenizer();
    let tokens = tokenizer.tokens("a photo of a cat").unwrap();
    let ids = tokenizer.encode("a photo of a cat").unwrap();
    assert_eq!(ids[1..=tokens.len()], tokens);
    assert_eq!(
        tokenizer.tokens(&"cat ".repeat(100)).unwrap().len(),
        100 * tokenizer.tokens("cat").unwrap().len()
    );
}

#[test]
fn padding_follows_the_checkpoint() {
    let model = tiny("tiny");
    let read = |file: &str| model.read(&format!("tokenizer/{file}")).unwrap();
    let (vocab, merges) = (read("vocab.json"), read("merges.txt"));
    let last = |config: Option<&str>| {
        let config = config.map(str::as_bytes);
        let tokenizer = ClipTokenizer::from_files(&vocab, &merges, config, None).unwrap();
        (
            tokenizer.length(),
            *tokenizer.encode("cat").unwrap().last().unwrap(),
        )
    };
    assert_eq!(last(None), (77, 999));
    assert_eq!(
        last(Some(
            r#"{"pad_token": "!", "model_max_length": 1000000000000000019884624838656}"#
        )),
        (77, 0)
    );
    assert_eq!(
        last(Some(r#"{"pad_token": {"content": "!"}, "model_max_length": 20}"#)),
        (20, 0)
    );
}

#[test]
fn broken_files_are_named() {
    let model = tiny("tiny");
    let read = |file: &str| model.read(&format!("tokenizer/{file}")).unwrap();
    let (vocab, merges) = (read("vocab.json"), read("merges.txt"));
    let error = |vocab: &[u8], merges: &[u8], config: Option<&[u8]>| {
        ClipTokenizer::from_files(vocab, merges, config, None)
            .unwrap_err()
            .to_string()
    };
    assert!(error(b"<html>", &merges, None).starts_with("tokenizer/vocab.json: "));
    assert!(error(b"{\"a\": 0}", &merges, None).contains("has no `<|startoftext|>`"));
    assert!(error(&vocab, b"#version\nnopair\n", None).starts_with("tokenizer/merges.txt: `nopair`"));
    assert!(error(&vocab, b"zzzz qqqq\n", None).starts_with("tokenizer/merges.txt: "));
    assert!(error(&vocab, &[0xFF, 0xFE], None).starts_with("tokenizer/merges.txt: "));
    assert!(error(&vocab, &merges, Some(b"{")).starts_with("tokenizer/tokenizer_config.json: "));
}
