//! Finds the words that stand for textual inversions in a text, before it is cut into tokens.
//!
//! A word is found whatever its case, beside a comma or any other letter that is no part of a word, and the longest one
//! first. A word of the vocabulary that is an embedding's name, too, is the embedding: who names one `cat` wants it so.

use std::collections::{BTreeSet, HashMap};

use super::syntax::{self, Piece};

/// The words of embeddings, each with the number of its embedding.
#[derive(Clone, Debug, Default)]
pub struct Triggers {
    /// By the first letter, the longest first.
    words: HashMap<char, Vec<Word>>,
}

#[derive(Clone, Debug)]
struct Word {
    /// In lower case.
    letters: Vec<char>,
    embedding: usize,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Embedding(usize),
}

impl Triggers {
    /// Of two equal words the first one counts. Empty ones never do.
    pub fn new<W: AsRef<str>>(words: impl IntoIterator<Item = (W, usize)>) -> Self {
        let mut all: HashMap<char, Vec<Word>> = HashMap::new();
        for (word, embedding) in words {
            let letters: Vec<char> = lower(word.as_ref().trim()).collect();
            if let Some(first) = letters.first() {
                all.entry(*first).or_default().push(Word { letters, embedding });
            }
        }
        for same in all.values_mut() {
            same.sort_by_key(|word| std::cmp::Reverse(word.letters.len()));
        }
        Self { words: all }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The numbers of the embeddings whose words a prompt has. None in one that will be refused for its weights.
    #[must_use]
    pub fn found(&self, prompt: &str) -> BTreeSet<usize> {
        if self.is_empty() {
            return BTreeSet::new();
        }
        let pieces = syntax::pieces(prompt).unwrap_or_default();
        let texts = pieces.iter().filter_map(|piece| match piece {
            Piece::Text { text, .. } => Some(self.split(text)),
            Piece::Break => None,
        });
        let parts = texts.flatten();
        parts
            .filter_map(|part| match part {
                Part::Embedding(number) => Some(number),
                Part::Text(_) => None,
            })
            .collect()
    }

    /// The text in parts, in order; no empty ones.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut begin, mut at, mut before) = (0, 0, None);
        while let Some(letter) = text[at..].chars().next() {
            if let Some((length, embedding)) = self.word_at(&text[at..], before) {
                if begin < at {
                    parts.push(Part::Text(&text[begin..at]));
                }
                parts.push(Part::Embedding(embedding));
                before = text[at..at + length].chars().next_back();
                at += length;
                begin = at;
            } else {
                before = Some(letter);
                at += letter.len_utf8();
            }
        }
        if begin < text.len() {
            parts.push(Part::Text(&text[begin..]));
        }
        parts
    }

    /// The longest word that the text begins with, in bytes of the text.
    fn word_at(&self, text: &str, before: Option<char>) -> Option<(usize, usize)> {
        let first = lower(text).next()?;
        let words = self.words.get(&first)?;
        let starts_word = !before.is_some_and(in_word);
        words.iter().find_map(|word| {
            if in_word(word.letters[0]) && !starts_word {
                return None;
            }
            let length = length_of(&word.letters, text)?;
            let ends_in_word = word.letters.last().copied().is_some_and(in_word);
            if ends_in_word && text[length..].starts_with(in_word) {
                return None;
            }
            Some((length, word.embedding))
        })
    }
}

/// Bytes of the text that are the letters, if it begins with them.
fn length_of(letters: &[char], text: &str) -> Option<usize> {
    let (mut rest, mut length) = (letters, 0);
    for letter in text.chars() {
        if rest.is_empty() {
            break;
        }
        for lower in letter.to_lowercase() {
            rest = rest.strip_prefix(&[lower])?;
        }
        length += letter.len_utf8();
    }
    rest.is_empty().then_some(length)
}

fn lower(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether a letter would go on with a word.
fn in_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triggers() -> Triggers {
        Triggers::new([
            ("EasyNegative", 0),
            ("easynegative v2", 1),
            ("<birb-style>", 2),
            ("cat", 3),
            ("Ümlaut", 4),
            ("", 5),
            ("CAT", 6),
        ])
    }

    fn split(text: &str) -> String {
        let triggers = triggers();
        let shown = triggers.split(text).into_iter().map(|part| match part {
            Part::Text(text) => format!("'{text}'"),
            Part::Embedding(number) => number.to_string(),
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_found_between_other_letters() {
        for (text, expected) in [
            ("", ""),
            ("plain", "'plain'"),
            ("easynegative", "0"),
            ("blurry,EASYNEGATIVE,bad", "'blurry,' 0 ',bad'"),
            ("EasyNegative V2", "1"),
            ("EasyNegative V2x", "0 ' V2x'"),
            (
                "a cat, CAT; concatenate cats cat_",
                "'a ' 3 ', ' 3 '; concatenate cats cat_'",
            ),
            ("in<birb-style><BIRB-style>x", "'in' 2 2 'x'"),
            ("ümlaut ÜMLAUT", "4 ' ' 4"),
            ("catcat cat", "'catcat ' 3"),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn a_prompt_is_read_before_its_words_are() {
        let triggers = triggers();
        let found = |text: &str| triggers.found(text).into_iter().collect::<Vec<_>>();
        assert_eq!(found("a (cat:1.2), [easynegative] BREAK <birb-style>"), [0, 2, 3]);
        assert_eq!(found(r"\(cat\)"), [3]);
        assert!(found("concatenate").is_empty());
        assert!(Triggers::default().is_empty() && Triggers::default().found("cat").is_empty());
    }
}
