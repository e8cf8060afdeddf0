//! GPT-2's byte-level BPE tokenizer, from `vocab.json` and `merges.txt`: every byte has a token, so that no text is unknown.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model as _, Tokenizer};

use crate::ModelError;
use crate::merges::{bad, parse_merges};

const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// How the space before a word is written in the vocabulary.
const SPACE: char = '\u{0120}';

/// Text to token ids, and back.
#[derive(Debug)]
pub struct Gpt2Tokenizer(Tokenizer);

impl Gpt2Tokenizer {
    /// Builds it from the content of both files.
    ///
    /// # Errors
    /// When a file is not what its name says.
    pub fn from_files(vocab_json: &[u8], merges_txt: &[u8]) -> Result<Self, ModelError> {
        let vocabulary: HashMap<String, u32> =
            serde_json::from_slice(vocab_json).map_err(|error| bad(VOCABULARY, &error))?;
        let merges = parse_merges(MERGES, merges_txt)?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), merges)
            .build()
            .map_err(|error| bad(MERGES, &error))?;
        let mut tokenizer = Tokenizer::new(model);
        // No space is put before the text, and words are found as OpenAI's encoder does.
        let bytes = ByteLevel::new(false, false, true);
        tokenizer.with_pre_tokenizer(Some(bytes));
        tokenizer.with_decoder(Some(bytes));
        Ok(Self(tokenizer))
    }

    /// The ids of a text, with nothing before or behind them.
    ///
    /// # Errors
    /// None is known; the tokenizer's interface allows one.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let found = self.0.encode(text, false).map_err(failed)?;
        Ok(found.get_ids().to_vec())
    }

    /// The text of ids.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.0.decode(ids, false).map_err(failed)
    }

    /// The token that is this text as a whole; None where it takes several. A space before a word is part of its token.
    #[must_use]
    pub fn id_of(&self, text: &str) -> Option<u32> {
        let written = text.replace(' ', &SPACE.to_string());
        self.0.get_model().token_to_id(&written)
    }

    /// Ids go up to here.
    #[must_use]
    pub fn largest_id(&self) -> Option<u32> {
        self.0.get_vocab(false).into_values().max()
    }
}

fn failed(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenize {
        detail: error.to_string(),
    }
}
