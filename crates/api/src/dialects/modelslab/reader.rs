//! Reads single fields as this vendor takes them, and keeps every complaint until all fields have been read.
//!
//! Invariant: after a complaint the value given back is only a placeholder; nothing is built from it, because
//! `Reader::finish` gives the complaints instead.

use std::ops::RangeInclusive;

use pentimento_types::ImageSource;

use crate::dialects::inline_picture;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{Refusal, integer_in, name, number_in, text};

/// The largest picture file, sent or fetched.
pub(super) const MAX_IMAGE_BYTES: usize = 30 * 1024 * 1024;

/// The fields of one body, and what is wrong with them so far.
#[derive(Debug)]
pub(super) struct Reader {
    fields: Fields,
    problems: Vec<Refusal>,
}

impl Reader {
    pub(super) const fn new(fields: Fields) -> Self {
        Self {
            fields,
            problems: Vec::new(),
        }
    }

    /// The names of the unknown fields, or everything that is wrong.
    pub(super) fn finish(self) -> Result<Vec<String>, Vec<Refusal>> {
        if self.problems.is_empty() {
            Ok(self.fields.into_ignored())
        } else {
            Err(self.problems)
        }
    }

    /// How many complaints there are.
    pub(super) const fn problems(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn take(&mut self, field: &str) -> Json {
        self.fields.take(field)
    }

    pub(super) fn complain(&mut self, field: &str, message: impl std::fmt::Display) {
        self.problems.push(Refusal::value(field, message));
    }

    pub(super) fn keep<T>(&mut self, result: Result<T, Refusal>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// A text; null is none.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        let value = self.take(field);
        self.keep(text(field, value)).flatten()
    }

    /// A name for machines: null, "" and the words that clients write for null are none.
    pub(super) fn word(&mut self, field: &str) -> Option<String> {
        let value = self.take(field);
        let found = self.keep(name(field, value)).flatten();
        found.filter(|word| !is_null_word(word))
    }

    /// Several names with commas between them; at most `limit`.
    pub(super) fn words(&mut self, field: &str, limit: usize) -> Vec<String> {
        let words: Vec<String> = self
            .word(field)
            .map(|words| words.split(',').map(|word| word.trim().to_owned()).collect())
            .unwrap_or_default();
        let words: Vec<String> = words.into_iter().filter(|word| !is_null_word(word)).collect();
        if words.len() > limit {
            let found = words.len();
            self.complain(
                field,
                format_args!("may name at most {limit} models, got {found}"),
            );
        }
        words
    }

    /// A whole number; None when it was not given.
    pub(super) fn whole(&mut self, field: &str, range: RangeInclusive<i64>) -> Option<u32> {
        let value = without_null_word(self.take(field));
        let found = self.keep(integer_in(field, value, range)).flatten();
        found.and_then(|found| u32::try_from(found).ok())
    }

    /// A number; None when it was not given.
    pub(super) fn number(&mut self, field: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = without_null_word(self.take(field));
        self.keep(number_in(field, value, range)).flatten()
    }

    /// yes or no, in all spellings; None when it was not given.
    pub(super) fn flag(&mut self, field: &str) -> Option<bool> {
        let found = match self.take(field) {
            Json::Null => return None,
            Json::Bool(flag) => Some(flag),
            Json::Integer(0) => Some(false),
            Json::Integer(1) => Some(true),
            Json::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "" | "null" => return None,
                "yes" | "true" | "1" | "on" => Some(true),
                "no" | "false" | "0" | "off" => Some(false),
                _ => None,
            },
            Json::Integer(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
        };
        if found.is_none() {
            self.complain(field, "must be yes or no");
        }
        found
    }

    /// One of a few words, in any case.
    pub(super) fn choice(&mut self, field: &str, words: &[&'static str]) -> Option<&'static str> {
        let given = self.word(field)?;
        let found = words
            .iter()
            .copied()
            .find(|word| word.eq_ignore_ascii_case(&given));
        if found.is_none() {
            self.complain(field, format_args!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// A picture: an address, base64 with or without `data:` in front, or the file of a form. Of an array the first text
    /// counts.
    pub(super) fn picture(&mut self, field: &str) -> Option<ImageSource> {
        let mut value = self.take(field);
        if let Json::List(items) = value {
            value = items.into_iter().next().unwrap_or_default();
        }
        if let Json::File(file) = value {
            if file.is_empty() {
                return None;
            }
            let within = inline_picture::within_limit(field, file.len(), MAX_IMAGE_BYTES);
            return self.keep(within).map(|()| ImageSource::Inline(file));
        }
        let text = self.keep(text(field, value)).flatten()?;
        let trimmed = text.trim();
        if trimmed.is_empty() || is_null_word(trimmed) {
            return None;
        }
        if let Some(scheme) = scheme(trimmed) {
            if scheme == "http" || scheme == "https" {
                return Some(ImageSource::Url(trimmed.to_owned()));
            }
            self.complain(field, "must be an http or https URL, or a file in base64");
            return None;
        }
        let decoded = inline_picture::decode(field, text, MAX_IMAGE_BYTES);
        self.keep(decoded).map(ImageSource::Inline)
    }
}

/// What stands before `://`, in lower case.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.get(..32).unwrap_or(text).split_once("://")?;
    let legal = scheme
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    legal.then(|| scheme.to_ascii_lowercase())
}

pub(super) fn is_null_word(word: &str) -> bool {
    ["", "null", "none", "undefined"]
        .iter()
        .any(|null| word.eq_ignore_ascii_case(null))
}

pub(super) fn without_null_word(value: Json) -> Json {
    if matches!(&value, Json::Text(word) if is_null_word(word.trim())) {
        Json::Null
    } else {
        value
    }
}
