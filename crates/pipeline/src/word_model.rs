//! A small language model that goes on with a prompt, in words of a list only.
//!
//! The idea of a list is that of Fooocus' prompt expansion (`extras/expansion.py`): whatever the model would like to say, nothing can
//! come of it but words that are known to be harmless. The choice is greedy, so that the same words always go on in the same way.

use std::collections::{BTreeMap, BTreeSet};

use pentimento_models::{Gpt2, Gpt2Past, Gpt2Tokenizer};

use crate::PipelineError;

/// Of a prompt, the last tokens that the model is shown: as many as a chunk has.
const SHOWN: usize = 75;
/// The most words of a phrase.
const PHRASE: usize = 3;

/// A loaded model with the words that it may say. It holds no state of any text.
#[derive(Debug)]
pub struct WordModel {
    pub(crate) network: Gpt2,
    pub(crate) tokenizer: Gpt2Tokenizer,
    /// Tokens that are a listed word with the space before it, and the word in small letters.
    pub(crate) listed: BTreeMap<u32, String>,
    pub(crate) comma: u32,
}

impl WordModel {
    /// How a text goes on: at most `most` words and commas, as phrases of one to three words.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn phrases(&self, text: &str, most: usize) -> Result<Vec<String>, PipelineError> {
        let chosen = self.chosen(text, most)?;
        let said = self.tokenizer.decode(&chosen)?;
        let phrases = said.split(',').map(str::trim).filter(|phrase| !phrase.is_empty());
        Ok(phrases.map(str::to_owned).collect())
    }

    /// The ids that are chosen, one after the other: the most likely of those that may come.
    pub(crate) fn chosen(&self, text: &str, most: usize) -> Result<Vec<u32>, PipelineError> {
        let ids = self.tokenizer.encode(text)?;
        let places = self.network.config().n_positions;
        let most = most.min(places / 2);
        let shown = SHOWN.min(places - most);
        let ids = &ids[ids.len().saturating_sub(shown)..];
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let said = text.to_lowercase();
        let said: BTreeSet<&str> = said.split(|letter: char| !letter.is_alphanumeric()).collect();
        let new = self
            .listed
            .iter()
            .filter(|(_, word)| !said.contains(word.as_str()));
        let mut words: BTreeSet<u32> = new.map(|(id, _)| *id).collect();
        let (mut past, mut chosen) = (Gpt2Past::default(), Vec::new());
        let mut next = ids.to_vec();
        while chosen.len() < most && !words.is_empty() {
            let logits = self.network.next_logits(&next, &mut past)?;
            let best = self.best(&logits, &words, &chosen);
            words.remove(&best);
            chosen.push(best);
            next = vec![best];
        }
        Ok(chosen)
    }

    /// Of the words, and of the comma where one may stand; nothing else behind three words.
    fn best(&self, logits: &[f32], words: &BTreeSet<u32>, chosen: &[u32]) -> u32 {
        let last = &chosen[chosen.len().saturating_sub(PHRASE)..];
        if last.len() == PHRASE && !last.contains(&self.comma) {
            return self.comma;
        }
        let comma = last.last().is_some_and(|id| *id != self.comma);
        let comma = comma.then_some(self.comma);
        let allowed = words.iter().copied().chain(comma);
        let logit = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let best = allowed.reduce(|best, id| if logit(id) > logit(best) { id } else { best });
        best.unwrap_or(self.comma)
    }
}
