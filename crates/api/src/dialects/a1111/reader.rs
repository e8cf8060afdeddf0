//! Reads single fields as FastAPI takes them: booleans in their spellings, numbers in strings, null as "not given".

use pentimento_types::ImageSource;

use super::fields::{REFUSED, STYLES};
use crate::dialects::field::{Choice, Field, Image, Images, Name, Number, Only, Text, Whole};
use crate::dialects::inline_image;
use crate::dialects::json::{Fields, Json};
use crate::dialects::lenient::{self, FieldError, list, name, shorten};

/// A text of bounded length.
pub(super) fn text(field: &Field<Text<&str>>, fields: &mut Fields) -> Result<String, FieldError> {
    let prompt = lenient::text(field.name, fields.take(field.name))?;
    let prompt = prompt.unwrap_or_else(|| field.kind.default.to_owned());
    let (chars, limit) = (prompt.chars().count(), field.kind.max_chars);
    if chars > limit {
        let message = format_args!("may have at most {limit} characters, got {chars}; shorten it");
        return Err(FieldError::value(field.name, message));
    }
    Ok(prompt)
}

/// A whole number that is not negative.
pub(super) fn whole(field: &Field<Whole<i64>>, fields: &mut Fields) -> Result<u32, FieldError> {
    let found = field.read(fields)?.unwrap_or(field.kind.default);
    Ok(u32::try_from(found).expect("no count of the tables is negative or large"))
}

/// The same where nothing may be said.
pub(super) fn whole_if_given<D>(
    field: &Field<Whole<D>>,
    fields: &mut Fields,
) -> Result<Option<u32>, FieldError> {
    let found = field.read(fields)?;
    Ok(found.map(|found| u32::try_from(found).expect("no count of the tables is negative or large")))
}

/// A number.
pub(super) fn number(field: &Field<Number<f64>>, fields: &mut Fields) -> Result<f64, FieldError> {
    Ok(field.read(fields)?.unwrap_or(field.kind.default))
}

/// A name under any of its names; none where it is empty or null.
pub(super) fn name_if_given<D>(
    field: &Field<Name<D>>,
    (place, fields): (&str, &mut Fields),
) -> Result<Option<String>, FieldError> {
    let mut found = None;
    for known in field.names() {
        let read = name(&format!("{place}{known}"), fields.take(known))?;
        found = found.or(read);
    }
    Ok(found)
}

/// A flag, in the spellings that pydantic takes.
pub(super) fn flag(field: &Field<Choice<&str>>, fields: &mut Fields) -> Result<bool, FieldError> {
    let found = match fields.take(field.name) {
        Json::Null => Some(field.kind.default == "true"),
        Json::Bool(flag) => Some(flag),
        Json::Integer(0) => Some(false),
        Json::Integer(1) => Some(true),
        Json::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        Json::Integer(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
    };
    found.ok_or_else(|| FieldError::value(field.name, "must be true or false"))
}

/// The image of a field, or None.
pub(super) fn image<D>(
    field: &Field<Image<D>>,
    fields: &mut Fields,
) -> Result<Option<ImageSource>, FieldError> {
    let text = lenient::text(field.name, fields.take(field.name))?;
    let text = text.filter(|text| !text.trim().is_empty());
    let decoded = text.map(|text| inline_image::decode(field.name, text, field.kind.max_bytes));
    Ok(decoded.transpose()?.map(ImageSource::Inline))
}

/// All images of a field; at least one.
pub(super) fn images(field: &Field<Images>, fields: &mut Fields) -> Result<Vec<ImageSource>, FieldError> {
    let items = list(field.name, fields.take(field.name), field.kind.max)?;
    if items.is_empty() {
        let message = "is required: an array of PNG, JPEG or WebP files in base64";
        return Err(FieldError::value(field.name, message));
    }
    let read = |(at, item): (usize, Json)| {
        let place = format!("{}[{at}]", field.name);
        let missing = || FieldError::value(&place, "must be a file in base64, got null");
        let text = lenient::text(&place, item)?.ok_or_else(missing)?;
        inline_image::decode(&place, text, field.kind.max_bytes).map(ImageSource::Inline)
    };
    items.into_iter().enumerate().map(read).collect()
}

/// Refuses what is not done here, unless the fields say so themselves, in whichever of FastAPI's spellings.
pub(super) fn refuse_others(these: &[&Field<Only>], fields: &mut Fields) -> Result<(), FieldError> {
    for field in these {
        let value = fields.take(field.name);
        if matches!(value, Json::Null) || field.kind.values.iter().any(|known| means(&value, known)) {
            continue;
        }
        let what = field.text.trim_end_matches('.');
        let what = lower_first(&what.replacen(", which", ": that", 1));
        let (way, found) = (field.kind.values.join(" or "), shorten(&written(&value)));
        return Err(FieldError::value(
            field.name,
            format_args!("{found} asks for something else: it is about {what}. Leave it out, or send {way}"),
        ));
    }
    Ok(())
}

/// Whether a value is what `known` writes as JSON: a flag, a number, a text or an empty object.
fn means(value: &Json, known: &str) -> bool {
    if known == "false" {
        return is_no(value);
    }
    if let Ok(number) = known.parse::<f64>() {
        return as_number(value) == Some(number);
    }
    written(value).eq_ignore_ascii_case(known)
}

fn is_no(value: &Json) -> bool {
    match value {
        Json::Bool(flag) => !flag,
        Json::Text(text) => ["false", "0", "no", "off", ""]
            .iter()
            .any(|no| text.trim().eq_ignore_ascii_case(no)),
        Json::Null | Json::Integer(_) | Json::Number(_) | Json::File(_) | Json::List(_) | Json::Object(_) => {
            as_number(value) == Some(0.0)
        }
    }
}

fn as_number(value: &Json) -> Option<f64> {
    match value {
        Json::Integer(integer) => Some(*integer as f64),
        Json::Number(number) => Some(*number),
        Json::Text(text) => text.trim().parse().ok(),
        Json::Null | Json::Bool(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
    }
}

/// The names of styles that were asked for, which have no effect.
pub(super) fn unknown_styles(fields: &mut Fields) -> Option<String> {
    let styles = match fields.take(STYLES.name) {
        Json::List(items) => items.len(),
        Json::Text(text) => usize::from(!text.trim().is_empty()),
        Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Number(_) | Json::File(_) | Json::Object(_) => {
            0
        }
    };
    (styles > 0).then(|| format!("No effect in this version: {}.", STYLES.name))
}

/// All that both calls refuse.
pub(super) fn refuse_all(fields: &mut Fields) -> Result<(), FieldError> {
    refuse_others(REFUSED, fields)
}

/// A value as JSON writes it, shortened where it has members.
fn written(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Integer(integer) => integer.to_string(),
        // 0.0 is written as 0.
        Json::Number(number) => format!("{number}"),
        Json::Text(text) => format!("{text:?}"),
        Json::File(_) => "a file".to_owned(),
        Json::List(items) if items.is_empty() => "[]".to_owned(),
        Json::List(_) => "[…]".to_owned(),
        Json::Object(members) => match members.as_slice() {
            [] => "{}".to_owned(),
            [(name, _), ..] => format!("{{{name:?}: …}}"),
        },
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_lowercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}
