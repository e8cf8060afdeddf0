//! CLIP's byte-level BPE tokenizer, built from `vocab.json` and `merges.txt` to give the ids of transformers'
//! `CLIPTokenizer`: NFC, white space collapsed, lower case, the same split into words, `</w>` after the last piece.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::ModelError;
use crate::merges::{bad, parse_merges};

/// The words of a text, as `CLIPTokenizer` finds them.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
const VOCABULARY: &str = "tokenizer/vocab.json";
const MERGES: &str = "tokenizer/merges.txt";
const SETTINGS: &str = "tokenizer/tokenizer_config.json";
const SPECIAL_TOKENS: &str = "tokenizer/special_tokens_map.json";

/// Text to token ids.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    pad: u32,
    length: usize,
}

impl ClipTokenizer {
    /// Builds the tokenizer from the content of a checkpoint's files. Without `tokenizer_config.json` the special
    /// tokens are those of Stable Diffusion 1.x, padding is by the end token, and the length is 77.
    ///
    /// `special_tokens_map.json` has the last word unless `tokenizer_config.json` has `added_tokens_decoder`, as
    /// transformers reads the two: Stable Diffusion 2 pads by `!`, and only the map says so.
    ///
    /// # Errors
    /// When a file is not what its name says, or a special token is not in the vocabulary.
    pub fn from_files(
        vocab_json: &[u8],
        merges_txt: &[u8],
        tokenizer_config_json: Option<&[u8]>,
        special_tokens_map_json: Option<&[u8]>,
    ) -> Result<Self, ModelError> {
        let vocabulary: HashMap<String, u32> =
            serde_json::from_slice(vocab_json).map_err(|e| bad(VOCABULARY, &e))?;
        let json = |file: &'static str, bytes: Option<&[u8]>| match bytes {
            Some(bytes) => serde_json::from_slice::<Value>(bytes).map_err(|e| bad(file, &e)),
            None => Ok(Value::Null),
        };
        let settings = json(SETTINGS, tokenizer_config_json)?;
        let special = match settings.get("added_tokens_decoder") {
            None => json(SPECIAL_TOKENS, special_tokens_map_json)?,
            Some(_) => Value::Null,
        };
        let id = |key: &str, default: &str| -> Result<(String, u32), ModelError> {
            let token = special_token(&special, key).or_else(|| special_token(&settings, key));
            let token = token.unwrap_or(default);
            let id = vocabulary.get(token).copied();
            let id = id.ok_or_else(|| bad(VOCABULARY, &format!("has no `{token}`, which is the {key}")))?;
            Ok((token.to_owned(), id))
        };
        let (begin_text, begin) = id("bos_token", "<|startoftext|>")?;
        let (end_text, end) = id("eos_token", "<|endoftext|>")?;
        let (_, pad) = id("pad_token", "<|endoftext|>")?;
        let (unknown, _) = id("unk_token", "<|endoftext|>")?;
        let merges = parse_merges(MERGES, merges_txt)?;
        let mut tokenizer = build(vocabulary, merges, unknown).map_err(|e| bad(MERGES, &e))?;
        // As transformers adds them: the end token is found in the raw text, the begin token in the normalised one.
        tokenizer
            .add_special_tokens([
                AddedToken::from(begin_text, true).normalized(true),
                AddedToken::from(end_text, true).normalized(false),
            ])
            .map_err(|e| bad(VOCABULARY, &e))?;
        Ok(Self {
            tokenizer,
            begin,
            end,
            pad,
            length: length(&settings),
        })
    }

    /// Number of ids in the result of [`Self::encode`]: 77.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The ids of `text`: begin, as many tokens as fit, end, padding; always [`Self::length`] of them.
    ///
    /// # Errors
    /// None is known; the tokenizer's interface allows one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let mut tokens = self.tokens(text)?;
        tokens.truncate(self.length - 2);
        Ok(self.framed(&tokens))
    }

    /// The token before a text.
    #[must_use]
    pub fn begin(&self) -> u32 {
        self.begin
    }

    /// The token after a text.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.end
    }

    /// What fills up the places behind it.
    #[must_use]
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Begin, the tokens, end, padding.
    fn framed(&self, tokens: &[u32]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.begin);
        ids.extend_from_slice(tokens);
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        ids
    }

    /// The ids of `text` itself, of any number, without begin, end and padding.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| ModelError::Tokenize {
                detail: e.to_string(),
            })?;
        Ok(encoding.get_ids().to_vec())
    }
}

fn build(
    vocabulary: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    unknown: String,
) -> tokenizers::Result<Tokenizer> {
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(),
            merges,
        )
        .unk_token(unknown)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_normalizer(Some(Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?),
        NormalizerWrapper::Lowercase(Lowercase),
    ])))?;
    let words = Split::new(
        SplitPattern::Regex(WORDS.to_owned()),
        SplitDelimiterBehavior::Removed,
        true,
    )?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    Ok(tokenizer)
}

/// A special token is written as text or as an object with the text under `content`.
fn special_token<'a>(settings: &'a Value, key: &str) -> Option<&'a str> {
    let value = settings.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// `model_max_length`, where it is a sensible number; some files have 1e30 for "no limit".
fn length(settings: &Value) -> usize {
    let found = settings.get("model_max_length").and_then(Value::as_u64);
    match found.map(usize::try_from) {
        Some(Ok(length)) if (3..=4096).contains(&length) => length,
        _ => 77,
    }
}
