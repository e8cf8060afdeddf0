//! Reads scalars as the commercial services do: numbers may be strings, null and "" mean "not given".
//!
//! Invariant: a value is either understood exactly or refused with the field's name, the limit and what came;
//! nothing is rounded or cut silently.

use std::ops::RangeInclusive;

use super::json::Json;

/// Why a field was refused. A dialect has its own word for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldErrorReason {
    /// Missing, of a wrong type or out of range.
    Value,
    /// An image that cannot be read.
    Image,
    /// An image of too many bytes.
    ImageBytes,
}

/// One field that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct FieldError {
    /// As the caller wrote it, `loras[1].strength` for example.
    pub(crate) field: String,
    /// Names the field, the limit and the way out.
    pub(crate) message: String,
    /// Why.
    pub(crate) reason: FieldErrorReason,
}

impl FieldError {
    /// A refused value; the message begins with the field's name.
    pub(crate) fn value(field: &str, message: impl std::fmt::Display) -> Self {
        Self {
            field: field.to_owned(),
            message: format!("{field} {message}"),
            reason: FieldErrorReason::Value,
        }
    }
}

/// A value was not what the field takes.
fn mismatch(field: &str, wanted: impl std::fmt::Display, found: &Json) -> FieldError {
    FieldError::value(field, format_args!("must be {wanted}, got {}", describe(found)))
}

/// A string; null is none. An empty string stays, because only the field knows what it means.
pub(crate) fn text(field: &str, value: Json) -> Result<Option<String>, FieldError> {
    match value {
        Json::Null => Ok(None),
        Json::Text(text) => Ok(Some(text)),
        Json::Bool(_)
        | Json::Integer(_)
        | Json::Number(_)
        | Json::File(_)
        | Json::List(_)
        | Json::Object(_) => Err(mismatch(field, "a string", &value)),
    }
}

/// A string that names something: trimmed, and empty is none.
pub(crate) fn name(field: &str, value: Json) -> Result<Option<String>, FieldError> {
    /// Longer names are mistakes or attacks; no vendor's comes near.
    const MAX_NAME: usize = 512;
    let Some(text) = text(field, value)? else {
        return Ok(None);
    };
    let text = text.trim();
    if text.len() > MAX_NAME {
        return Err(FieldError::value(
            field,
            format_args!("must be a name of at most {MAX_NAME} bytes"),
        ));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// A whole number within `range`: `3`, `3.0`, `"3"`, `" 3 "`.
pub(crate) fn integer_in(
    field: &str,
    value: Json,
    range: RangeInclusive<i64>,
) -> Result<Option<i64>, FieldError> {
    let found = match &value {
        Json::Null => return Ok(None),
        Json::Text(text) if text.trim().is_empty() => return Ok(None),
        Json::Integer(integer) => i64::try_from(*integer).ok(),
        Json::Number(number) => whole(*number),
        Json::Text(text) => text
            .trim()
            .parse()
            .ok()
            .or_else(|| text.trim().parse().ok().and_then(whole)),
        Json::Bool(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
    };
    let found = found.filter(|found| range.contains(found)).ok_or_else(|| {
        let wanted = format!("a whole number in [{}, {}]", range.start(), range.end());
        mismatch(field, wanted, &value)
    })?;
    Ok(Some(found))
}

/// A finite number within `range`: `7.5`, `7`, `"7.5"`.
pub(crate) fn number_in(
    field: &str,
    value: Json,
    range: RangeInclusive<f64>,
) -> Result<Option<f64>, FieldError> {
    let found = match &value {
        Json::Null => return Ok(None),
        Json::Text(text) if text.trim().is_empty() => return Ok(None),
        #[expect(
            clippy::cast_precision_loss,
            reason = "ranges are small; what is beyond them is refused"
        )]
        Json::Integer(integer) => Some(*integer as f64),
        Json::Number(number) => Some(*number),
        Json::Text(text) => text.trim().parse().ok(),
        Json::Bool(_) | Json::File(_) | Json::List(_) | Json::Object(_) => None,
    };
    // NaN is in no range. Minus zero is zero.
    let found = found.filter(|found| range.contains(found)).ok_or_else(|| {
        let wanted = format!("a number in [{}, {}]", range.start(), range.end());
        mismatch(field, wanted, &value)
    })?;
    Ok(Some(found + 0.0))
}

/// An array of at most `limit` items; null and "" are none.
pub(crate) fn list(field: &str, value: Json, limit: usize) -> Result<Vec<Json>, FieldError> {
    match value {
        Json::Null => Ok(Vec::new()),
        Json::Text(text) if text.is_empty() => Ok(Vec::new()),
        Json::List(items) if items.len() <= limit => Ok(items),
        Json::List(items) => Err(FieldError::value(
            field,
            format_args!("may hold at most {limit} items, got {}; send fewer", items.len()),
        )),
        Json::Bool(_)
        | Json::Integer(_)
        | Json::Number(_)
        | Json::Text(_)
        | Json::File(_)
        | Json::Object(_) => Err(mismatch(field, "an array", &value)),
    }
}

/// The members of an object; null is none.
pub(crate) fn object(field: &str, value: Json) -> Result<Option<Vec<(String, Json)>>, FieldError> {
    match value {
        Json::Null => Ok(None),
        Json::Object(members) => Ok(Some(members)),
        Json::Bool(_)
        | Json::Integer(_)
        | Json::Number(_)
        | Json::Text(_)
        | Json::File(_)
        | Json::List(_) => Err(mismatch(field, "an object", &value)),
    }
}

fn whole(number: f64) -> Option<i64> {
    /// 2^53: up to here every whole number has a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked: whole and within 2^53")]
    let integer = || number as i64;
    (number.fract() == 0.0 && number.abs() <= EXACT).then(integer)
}

/// A value in an error text, short.
fn describe(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Integer(integer) => integer.to_string(),
        Json::Number(number) => format!("{number:?}"),
        Json::Text(text) => format!("{:?}", shorten(text)),
        Json::File(_) => "a file".to_owned(),
        Json::List(_) => "an array".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    }
}

/// The first characters of a caller's text, for an error message or a header.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Json {
        Json::Text(text.to_owned())
    }

    #[test]
    fn whole_numbers_in_all_their_spellings() {
        for value in [
            Json::Integer(3),
            Json::Number(3.0),
            string("3"),
            string(" 3 "),
            string("3.0"),
        ] {
            assert_eq!(integer_in("steps", value, 1..=8), Ok(Some(3)));
        }
        for value in [Json::Null, string(""), string("  ")] {
            assert_eq!(integer_in("steps", value, 1..=8), Ok(None));
        }
        let beyond = [
            Json::Integer(0),
            Json::Integer(9),
            Json::Integer(u64::MAX.into()),
            Json::Number(1e300),
        ];
        let wrong = [
            Json::Number(3.5),
            Json::Bool(true),
            string("three"),
            string("NaN"),
            string("inf"),
        ];
        for value in beyond
            .into_iter()
            .chain(wrong)
            .chain([Json::List(vec![]), Json::Object(vec![])])
        {
            let refusal = integer_in("steps", value.clone(), 1..=8).unwrap_err();
            assert_eq!(refusal.field, "steps", "{value:?}");
            assert!(
                refusal
                    .message
                    .starts_with("steps must be a whole number in [1, 8], got "),
                "{refusal}"
            );
        }
    }

    #[test]
    fn numbers_in_all_their_spellings() {
        for value in [Json::Number(0.5), string("0.5"), string("5e-1")] {
            assert_eq!(number_in("strength", value, 0.0..=1.0), Ok(Some(0.5)));
        }
        let minus_zero = number_in("strength", Json::Number(-0.0), 0.0..=1.0)
            .unwrap()
            .unwrap();
        assert!(minus_zero.is_sign_positive());
        for value in [
            Json::Number(1.0001),
            Json::Integer(-1),
            string("NaN"),
            string("inf"),
            string("1e400"),
        ] {
            assert!(number_in("strength", value, 0.0..=1.0).is_err());
        }
    }

    #[test]
    fn a_message_shows_no_more_than_the_beginning_of_a_text() {
        let refusal = number_in("strength", string(&"x".repeat(5000)), 0.0..=1.0).unwrap_err();
        assert!(refusal.message.len() < 200);
    }

    #[test]
    fn names_are_trimmed_and_bounded() {
        assert_eq!(name("model_name", string(" demo ")), Ok(Some("demo".to_owned())));
        assert_eq!(name("model_name", string(" ")), Ok(None));
        assert!(name("model_name", string(&"x".repeat(513))).is_err());
        assert!(name("model_name", Json::Integer(1)).is_err());
    }

    #[test]
    fn lists_are_bounded() {
        assert_eq!(list("loras", Json::Null, 5), Ok(vec![]));
        assert_eq!(
            list("loras", Json::List(vec![Json::Null; 5]), 5).unwrap().len(),
            5
        );
        assert!(list("loras", Json::List(vec![Json::Null; 6]), 5).is_err());
        assert!(list("loras", Json::Object(vec![]), 5).is_err());
    }
}
