//! GPT-2 against transformers (`tests/golden/generate/prompt_enhancer.py`).

use candle_core::Tensor;
use pentimento_models::{Gpt2, Gpt2Past, Gpt2Tokenizer, ModelError};
use pentimento_testkit::{Golden, Tolerance, golden_dir};
use pentimento_weights::{Checkpoint, Dtypes};

use crate::support::{CPU, close};

const WEIGHTS: &str = "prompt_enhancer/model.safetensors";

fn file(name: &str) -> Vec<u8> {
    fs_err::read(golden_dir().join("prompt_enhancer/model").join(name)).unwrap()
}

/// The network of a file whose tensors have other names.
fn named(name: impl Fn(&str) -> String) -> Gpt2 {
    let model = Golden::open("prompt_enhancer/model/model.safetensors");
    let tensors = model
        .names()
        .into_iter()
        .map(|old| (name(old), model.tensor(old).clone()));
    let mut tensors: Vec<_> = tensors.collect();
    // As older files have it beside the weights.
    tensors.push((
        name("transformer.h.0.attn.masked_bias"),
        model.tensor("transformer.wpe.weight").clone(),
    ));
    let bytes = safetensors::serialize(tensors, None).unwrap();
    let files = Checkpoint::in_memory("m", move |path| (path == WEIGHTS).then(|| bytes.clone()));
    let weights = files.component("prompt_enhancer", Dtypes::Stored, &CPU).unwrap();
    let config = serde_json::from_slice(&file("config.json")).unwrap();
    let network = Gpt2::new(&config, &weights.var_builder()).unwrap();
    weights.finish_partly().unwrap();
    network
}

fn tokenizer() -> Gpt2Tokenizer {
    Gpt2Tokenizer::from_files(&file("vocab.json"), &file("merges.txt")).unwrap()
}

fn ids(golden: &Golden, index: usize) -> Vec<u32> {
    let ids = golden.values::<i64>(&format!("ids.{index}"));
    ids.into_iter().map(|id| u32::try_from(id).unwrap()).collect()
}

#[test]
fn tokens_are_those_of_transformers_and_become_the_text_again() {
    let (golden, tokenizer) = (Golden::open("prompt_enhancer/cases.safetensors"), tokenizer());
    let prompts = golden.about()["prompts"].as_array().unwrap();
    for (index, prompt) in prompts.iter().enumerate() {
        let prompt = prompt.as_str().unwrap();
        let found = tokenizer.encode(prompt).unwrap();
        assert_eq!(found, ids(&golden, index), "{prompt:?}");
        assert_eq!(tokenizer.decode(&found).unwrap(), prompt);
    }
    let sharp = tokenizer.id_of(" sharp").unwrap();
    assert_eq!(tokenizer.decode(&[sharp]).unwrap(), " sharp");
    assert_eq!(tokenizer.id_of(" no such word"), None);
    let broken = Gpt2Tokenizer::from_files(b"{}", b"a").unwrap_err();
    assert!(
        matches!(
            broken,
            ModelError::TokenizerFile {
                file: "merges.txt",
                ..
            }
        ),
        "{broken}"
    );
}

#[test]
fn logits_equal_transformers_at_once_and_token_by_token() {
    let golden = Golden::open("prompt_enhancer/cases.safetensors");
    // With the prefix of a language model's file, and without it as OpenAI's own.
    let names: [fn(&str) -> String; 2] = [
        |name| name.to_owned(),
        |name| name.strip_prefix("transformer.").unwrap_or(name).to_owned(),
    ];
    for name in names {
        let network = named(name);
        assert_eq!(
            network.size_bytes(),
            4 * (32 * (355 + 96 + 2) + 3 * (12 * 32 * 32 + 13 * 32)) as u64
        );
        for index in 0..5 {
            let (ids, expected) = (ids(&golden, index), golden.tensor(&format!("logits.{index}")));
            let mut past = Gpt2Past::default();
            let found = network.logits(&ids, &mut past).unwrap();
            close(&format!("logits.{index}"), &found, expected, Tolerance::LANGUAGE);
            assert_eq!(past.len(), ids.len());
            let mut past = Gpt2Past::default();
            let last = network.next_logits(&ids, &mut Gpt2Past::default()).unwrap();
            // One row is multiplied in another order than many.
            let last = Tensor::new(last, &CPU).unwrap().unsqueeze(0).unwrap();
            let expected_last = expected.narrow(0, ids.len() - 1, 1).unwrap();
            close("the last row alone", &last, &expected_last, Tolerance::LANGUAGE);
            for (at, id) in ids.iter().enumerate() {
                let found = network.logits(&[*id], &mut past).unwrap();
                let expected = expected.narrow(0, at, 1).unwrap();
                close("one by one", &found, &expected, Tolerance::LANGUAGE);
            }
        }
    }
}

#[test]
fn a_text_that_does_not_fit_is_refused() {
    let network = named(str::to_owned);
    for ids in [&[][..], &[355], &[0; 97]] {
        let refused = network.logits(ids, &mut Gpt2Past::default()).unwrap_err();
        assert!(matches!(refused, ModelError::Shape { .. }), "{refused}");
    }
    let mut past = Gpt2Past::default();
    network.logits(&[0; 96], &mut past).unwrap();
    assert!(network.logits(&[0], &mut past).is_err());
}
