//! Reads single fields as this vendor takes them; the first that cannot be accepted ends the reading, because an error names
//! one `param`.

use crate::dialects::field::{Choice, Field, Text, Whole};
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{FieldError, name, shorten, text};

/// A text of bounded length; None when it was not given.
pub(super) fn prompt<D>(field: &Field<Text<D>>, fields: &mut Fields) -> Result<Option<String>, FieldError> {
    let Some(prompt) = text(field.name, fields.take(field.name))? else {
        return Ok(None);
    };
    let (chars, limit) = (prompt.chars().count(), field.kind.max_chars);
    if chars > limit {
        let found = format_args!("may have at most {limit} characters, got {chars}; shorten it");
        return Err(FieldError::value(field.name, found));
    }
    Ok(Some(prompt))
}

/// One of a few words in any case; None when it was not given.
pub(super) fn choice<D>(
    field: &Field<Choice<D>>,
    fields: &mut Fields,
) -> Result<Option<&'static str>, FieldError> {
    let Some(given) = name(field.name, fields.take(field.name))? else {
        return Ok(None);
    };
    let words = field.kind.words;
    let found = words.iter().find(|word| word.eq_ignore_ascii_case(&given));
    let unknown = || {
        let message = format_args!("must be one of {}, got {:?}", words.join(", "), shorten(&given));
        FieldError::value(field.name, message)
    };
    found.copied().ok_or_else(unknown).map(Some)
}

/// `true` or `false`, as a text too, since forms have nothing else.
pub(crate) fn flag(field: &Field<Choice<&str>>, fields: &mut Fields) -> Result<bool, FieldError> {
    let value = fields.take(field.name);
    if let Json::Bool(flag) = value {
        return Ok(flag);
    }
    let word = name(field.name, value).map_err(|_| FieldError::value(field.name, "must be true or false"))?;
    match word.map(|word| word.to_ascii_lowercase()).as_deref() {
        None => Ok(field.kind.default == "true"),
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(FieldError::value(field.name, "must be true or false")),
    }
}

/// A count, or its default.
pub(super) fn whole(field: &Field<Whole<i64>>, fields: &mut Fields) -> Result<u32, FieldError> {
    let found = field.read(fields)?.unwrap_or(field.kind.default);
    Ok(u32::try_from(found).expect("no count of the tables is negative or large"))
}
