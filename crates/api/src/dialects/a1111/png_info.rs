//! `POST /sdapi/v1/png-info`: the parameters inside a picture, as a text and taken apart.

use pentimento_service::image_codec::read_parameters;
use pentimento_types::ImageSource;
use serde_json::{Map, Value, json};

use super::error::A1111Error;
use super::fields::{IMAGE, PNG_INFO};
use super::reader::image;
use crate::dialects::field::names;
use crate::dialects::json::parse_object;
use crate::dialects::lenient::FieldError;

/// The reply for a body.
pub(super) fn of_body(bytes: &[u8]) -> Result<Value, A1111Error> {
    let mut fields = parse_object(bytes, &names(PNG_INFO))?;
    let missing = || FieldError::value(IMAGE.name, "is required: a PNG, JPEG or WebP file in base64");
    let image = image(&IMAGE, &mut fields)?.ok_or_else(missing)?;
    let text = match &image {
        ImageSource::Inline(bytes) => read_parameters(bytes).unwrap_or_default(),
        ImageSource::Url(_) => String::new(),
    };
    let parameters = taken_apart(&text);
    Ok(json!({"info": text, "items": {}, "parameters": parameters}))
}

/// As `parse_generation_parameters` of A1111's `modules/infotext_utils.py`: the last line has names and values, where it has
/// three of them; the lines before it are the two prompts.
fn taken_apart(text: &str) -> Map<String, Value> {
    const NEGATIVE: &str = "Negative prompt:";
    let mut lines: Vec<&str> = text.trim().split('\n').collect();
    let last = lines.pop().unwrap_or_default();
    let mut pairs = pairs(last);
    if pairs.len() < 3 {
        lines.push(last);
        pairs.clear();
    }
    let (mut prompt, mut negative) = (Vec::new(), Vec::new());
    let mut is_negative = false;
    for line in lines {
        let line = line.trim();
        let line = match line.strip_prefix(NEGATIVE) {
            Some(rest) => {
                is_negative = true;
                rest.trim()
            }
            None => line,
        };
        if is_negative { &mut negative } else { &mut prompt }.push(line);
    }
    let mut all = Map::new();
    all.insert("Prompt".to_owned(), prompt.join("\n").into());
    all.insert("Negative prompt".to_owned(), negative.join("\n").into());
    for (name, value) in pairs {
        if let Some((width, height)) = sides(&value) {
            all.insert(format!("{name}-1"), width.into());
            all.insert(format!("{name}-2"), height.into());
        } else {
            all.insert(name, value.into());
        }
    }
    all
}

/// `Steps: 20, Model: "a, b"`
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once(':') {
        let name = name.trim_start_matches(',').trim();
        let after = after.trim_start();
        let (value, behind) = if after.starts_with('"') {
            quoted(after)
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/');
        if name.is_empty() || !name.chars().all(is_name) {
            return found;
        }
        found.push((name.to_owned(), value));
        rest = behind;
    }
    found
}

/// A text in quotation marks as JSON writes it, and what is behind it.
fn quoted(text: &str) -> (String, &str) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    match values.next() {
        Some(Ok(value)) => {
            let end = values.byte_offset();
            (value, &text[end..])
        }
        Some(Err(_)) | None => (text.to_owned(), ""),
    }
}

fn sides(value: &str) -> Option<(&str, &str)> {
    let (width, height) = value.split_once('x')?;
    let digits = |side: &str| !side.is_empty() && side.bytes().all(|byte| byte.is_ascii_digit());
    (digits(width) && digits(height)).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_taken_apart_as_the_web_ui_does() {
        let text = "a house\nby the sea\nNegative prompt: fog,\nrain\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, \
                    Seed: 965400086, Size: 512x768, Model: \"a, \\\"b\\\"\", Version: v1.9.3";
        let found = taken_apart(text);
        for (name, value) in [
            ("Prompt", "a house\nby the sea"),
            ("Negative prompt", "fog,\nrain"),
            ("Steps", "20"),
            ("Sampler", "DPM++ 2M Karras"),
            ("CFG scale", "7"),
            ("Seed", "965400086"),
            ("Size-1", "512"),
            ("Size-2", "768"),
            ("Model", "a, \"b\""),
            ("Version", "v1.9.3"),
        ] {
            assert_eq!(found[name], value, "{name}");
        }
    }

    #[test]
    fn a_text_without_parameters_is_a_prompt() {
        for text in [
            "a house: red",
            "a house",
            "",
            "::",
            "a: \"",
            "Negative prompt: \"x",
        ] {
            let found = taken_apart(text);
            assert_eq!(found.len(), 2, "{text}: {found:?}");
        }
        assert_eq!(taken_apart("a\nb: 1, c: 2")["Prompt"], "a\nb: 1, c: 2");
    }
}
