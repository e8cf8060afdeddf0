//! Reads single fields as this vendor takes them, and keeps every error until all fields have been read.
//!
//! Invariant: after an error the value given back is only a placeholder; nothing is built from it, because
//! [`Reader::into_ignored`] gives the errors instead.

use pentimento_types::ImageSource;

use crate::dialects::field::{
    Choice, Effect, Field, Flag, Image, Name, Names, Number, Read, Table, Text, Whole,
};
use crate::dialects::inline_image;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, name, text};

/// The fields of one body, and what is wrong with them so far.
#[derive(Debug)]
pub(super) struct Reader {
    fields: Fields,
    errors: Vec<FieldError>,
    /// What was asked for and has no effect yet.
    without_effect: Vec<&'static str>,
}

impl Reader {
    pub(super) const fn new(fields: Fields) -> Self {
        Self {
            fields,
            errors: Vec::new(),
            without_effect: Vec::new(),
        }
    }

    /// The names of the unknown fields, or everything that is wrong.
    pub(super) fn into_ignored(self) -> Result<Vec<String>, Vec<FieldError>> {
        if self.errors.is_empty() {
            Ok(self.fields.into_ignored())
        } else {
            Err(self.errors)
        }
    }

    /// How many errors there are.
    pub(super) const fn error_count(&self) -> usize {
        self.errors.len()
    }

    pub(super) fn take(&mut self, field: &str) -> Json {
        self.fields.take(field)
    }

    /// Keeps an error about a field.
    pub(super) fn refuse(&mut self, field: &str, message: impl std::fmt::Display) {
        self.errors.push(FieldError::value(field, message));
    }

    /// The value, or None when the error was kept.
    pub(super) fn ok<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    /// The sentence about what was asked for and has no effect yet, in the order of the table.
    pub(super) fn no_effect_warning(&self, table: Table) -> Option<String> {
        let mut named: Vec<&str> = Vec::new();
        for field in table {
            if let Effect::NotYet(name) = field.effect()
                && self.without_effect.contains(&name)
                && !named.contains(&name)
            {
                named.push(name);
            }
        }
        (!named.is_empty()).then(|| format!("No effect in this version: {}.", named.join(", ")))
    }

    /// A field was asked for.
    pub(super) fn note_effect(&mut self, effect: Effect) {
        if let Effect::NotYet(name) = effect {
            self.without_effect.push(name);
        }
    }

    /// A text; null is none, and so are false and 0, which some clients send for it.
    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        let value = without_false(self.take(field));
        self.ok(text(field, value)).flatten()
    }

    /// A text of bounded length; None when it was not given.
    pub(super) fn prompt<D>(&mut self, field: &Field<Text<D>>) -> Option<String> {
        let prompt = self.text(field.name)?;
        let (chars, limit) = (prompt.chars().count(), field.kind.max_chars);
        if chars > limit {
            let message = format_args!("must not have more than {limit} characters, got {chars}");
            self.refuse(field.name, message);
        }
        Some(prompt)
    }

    /// A name for machines: null, false, 0, "" and the words that clients write for them are none.
    fn word(&mut self, field: &str) -> Option<String> {
        let value = without_false(self.take(field));
        let found = self.ok(name(field, value)).flatten();
        found.filter(|word| !is_nothing(word))
    }

    /// A name; None when it was not given.
    pub(super) fn name<D>(&mut self, field: &Field<Name<D>>) -> Option<String> {
        self.word(field.name)
    }

    /// Several names with commas between them.
    pub(super) fn names(&mut self, field: &Field<Names>) -> Vec<String> {
        let words: Vec<String> = self
            .word(field.name)
            .map(|words| words.split(',').map(|word| word.trim().to_owned()).collect())
            .unwrap_or_default();
        let words: Vec<String> = words.into_iter().filter(|word| !is_null_word(word)).collect();
        let limit = field.kind.max;
        if words.len() > limit {
            let found = words.len();
            self.refuse(
                field.name,
                format_args!("may name at most {limit} models, got {found}"),
            );
        }
        words
    }

    /// A whole number, or the default.
    pub(super) fn whole(&mut self, field: &Field<Whole<i64>>) -> u32 {
        self.whole_if_given(field).unwrap_or_else(|| Self::usual(field))
    }

    /// None where the caller leaves it open, or what was sent is no such number.
    pub(super) fn whole_if_given(&mut self, field: &Field<Whole<i64>>) -> Option<u32> {
        self.number_if_given(field).map(count)
    }

    /// The default.
    pub(super) fn usual(field: &Field<Whole<i64>>) -> u32 {
        count(field.kind.default)
    }

    /// A number, or the default.
    pub(super) fn number(&mut self, field: &Field<Number<f64>>) -> f64 {
        self.number_if_given(field).unwrap_or(field.kind.default)
    }

    /// A number of either kind under any of its names; the first name that has one counts.
    pub(super) fn number_if_given<K: Read>(&mut self, field: &Field<K>) -> Option<K::Value> {
        let mut found = None;
        for name in field.names() {
            let value = without_null_word(self.take(name));
            let read = self.ok(field.kind.read(name, value)).flatten();
            found = found.or(read);
        }
        found
    }

    /// yes or no, in all spellings, or the default.
    pub(super) fn flag(&mut self, field: &Field<Flag>) -> bool {
        let flag = self.flag_if_given(field).unwrap_or(field.kind.default);
        if flag {
            self.note_effect(field.effect);
        }
        flag
    }

    /// yes or no, in all spellings; None when it was not given.
    pub(super) fn flag_if_given(&mut self, field: &Field<Flag>) -> Option<bool> {
        let found = match self.take(field.name) {
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
            self.refuse(field.name, "must be yes or no");
        }
        found
    }

    /// One of a few words in any case, or what else was written; None when it was not given.
    pub(super) fn choice<D>(&mut self, field: &Field<Choice<D>>) -> Option<Result<&'static str, String>> {
        let given = self.word(field.name)?;
        let same = |word: &&str| word.eq_ignore_ascii_case(&given);
        let found = field.kind.words.iter().copied().find(same);
        self.note_effect(field.effect);
        Some(found.ok_or(given))
    }

    /// One of a few words in any case; anything else is refused.
    pub(super) fn one_of<D>(&mut self, field: &Field<Choice<D>>) -> Option<&'static str> {
        let found = self.choice(field)?.ok();
        if found.is_none() {
            let words = field.kind.words.join(", ");
            self.refuse(field.name, format_args!("must be one of {words}"));
        }
        found
    }

    /// An image: an address, base64 with or without `data:` in front, or the file of a form. Of an array the first text
    /// counts.
    pub(super) fn image<D>(&mut self, field: &Field<Image<D>>) -> Option<ImageSource> {
        let (name, limit) = (field.name, field.kind.max_bytes);
        let mut value = self.take(name);
        if let Json::List(items) = value {
            value = items.into_iter().next().unwrap_or_default();
        }
        if let Json::File(file) = value {
            if file.is_empty() {
                return None;
            }
            let within = inline_image::within_limit(name, file.len(), limit);
            return self.given_image(field, within.map(|()| ImageSource::Inline(file)));
        }
        let text = self.ok(text(name, without_false(value))).flatten()?;
        let trimmed = text.trim();
        if is_nothing(trimmed) {
            return None;
        }
        let Some(scheme) = scheme(trimmed) else {
            let decoded = inline_image::decode(name, text, limit);
            return self.given_image(field, decoded.map(ImageSource::Inline));
        };
        if scheme == "http" || scheme == "https" {
            return self.given_image(field, Ok(ImageSource::Url(trimmed.to_owned())));
        }
        self.refuse(name, "must be an http or https URL, or a file in base64");
        None
    }

    fn given_image<D>(
        &mut self,
        field: &Field<Image<D>>,
        image: Result<ImageSource, FieldError>,
    ) -> Option<ImageSource> {
        self.note_effect(field.effect);
        self.ok(image)
    }

    /// An image that has to be there.
    pub(super) fn required_image<D>(&mut self, field: &Field<Image<D>>) -> ImageSource {
        let before = self.error_count();
        let image = self.image(field);
        if image.is_none() && self.error_count() == before {
            self.refuse(field.name, "is required");
        }
        image.unwrap_or_else(|| ImageSource::Url(String::new()))
    }
}

fn count(number: i64) -> u32 {
    u32::try_from(number).expect("no count of the tables is negative or large")
}

/// What stands before `://`, in lower case.
pub(super) fn scheme(text: &str) -> Option<String> {
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

/// Whether a text that names something for machines names nothing. A form has no other way to send false.
pub(super) fn is_nothing(word: &str) -> bool {
    is_null_word(word) || word.eq_ignore_ascii_case("false") || word == "0"
}

/// false and 0 where a text is expected mean that none was given.
pub(super) fn without_false(value: Json) -> Json {
    if matches!(value, Json::Bool(false) | Json::Integer(0) | Json::Number(0.0)) {
        Json::Null
    } else {
        value
    }
}

pub(super) fn without_null_word(value: Json) -> Json {
    if matches!(&value, Json::Text(word) if is_null_word(word.trim())) {
        Json::Null
    } else {
        value
    }
}
