//! JSON Schema of what the field tables say.

use serde_json::{Map, Value, json};

use crate::{Effect, FieldDescription};

/// An object with these members. Unknown members are allowed, as the calls allow them.
pub(crate) fn object_of(fields: &[FieldDescription]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| (field.name.to_owned(), schema_of(field)))
        .collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The same as a form, in which images are files.
pub(super) fn form_of(fields: &[FieldDescription]) -> Value {
    let mut schema = object_of(fields);
    for field in fields.iter().filter(|field| field.kind.starts_with("image")) {
        let property = &mut schema["properties"][field.name];
        *property = json!({"type": "string", "format": "binary", "description": property["description"]});
    }
    schema
}

/// One field. What more than the plain spelling is taken, a number in a string for example, the description says.
pub(super) fn schema_of(field: &FieldDescription) -> Value {
    let mut schema = match field.kind {
        "text" => json!({"type": "string"}),
        "integer" => json!({"type": "integer"}),
        "number" => json!({"type": "number"}),
        "flag" => json!({"type": "string", "enum": ["yes", "no"]}),
        "choice" if is_boolean(field) => json!({"type": "boolean"}),
        "choice" => json!({"type": "string", "enum": field.choices}),
        "image" => json!({"type": "string", "contentEncoding": "base64"}),
        "images" => json!({"type": "array", "items": {"type": "string", "contentEncoding": "base64"}}),
        "only" => json!({"enum": only(field.choices)}),
        "address" => json!({"type": "string", "format": "uri"}),
        "label" => json!({"type": ["string", "integer"]}),
        "list" => json!({"type": "array", "items": object_of(&field.members)}),
        "object" => object_of(&field.members),
        "anything" => json!({}),
        // `name`, `names`, `numbers` and `image or address`.
        _ => json!({"type": "string"}),
    };
    match field.unit {
        Some("characters") => schema["maxLength"] = json!(field.maximum),
        Some("items") if matches!(field.kind, "list" | "images") => schema["maxItems"] = json!(field.maximum),
        None if matches!(field.kind, "integer" | "number") => {
            schema["minimum"] = json!(field.minimum);
            schema["maximum"] = json!(field.maximum);
        }
        Some(_) | None => {}
    }
    whole_numbers(&mut schema);
    if let Some(default) = &field.default {
        schema["default"] = match (field.kind, default) {
            ("flag", Value::Bool(on)) => if *on { "yes" } else { "no" }.into(),
            ("numbers", other) => other.to_string().into(),
            ("choice", Value::String(word)) if is_boolean(field) => (word == "true").into(),
            (_, other) => other.clone(),
        };
    }
    schema["description"] = description(field).into();
    if matches!(field.effect, Effect::Never) {
        schema["deprecated"] = true.into();
    }
    schema
}

/// Null, and what is written as JSON.
fn only(values: &[&str]) -> Vec<Value> {
    let written = values
        .iter()
        .map(|value| serde_json::from_str(value).unwrap_or_default());
    std::iter::once(Value::Null).chain(written).collect()
}

/// A flag of the dialect whose flags are JSON's.
fn is_boolean(field: &FieldDescription) -> bool {
    field.choices == ["true", "false"]
}

/// Bounds are kept as floats, and are written without a point where they are whole.
fn whole_numbers(schema: &mut Value) {
    for name in ["minimum", "maximum", "maxLength", "maxItems"] {
        let Some(bound) = schema.get(name).and_then(Value::as_f64) else {
            continue;
        };
        #[expect(clippy::cast_possible_truncation, reason = "a whole number, far below 2^63")]
        if bound.fract() == 0.0 && bound.abs() < 1e18 {
            schema[name] = (bound as i64).into();
        }
    }
}

/// What it is for, what more is taken, and what happens without it.
pub(super) fn description(field: &FieldDescription) -> String {
    let mut sentences = vec![field.text.to_owned()];
    let most = field.maximum.unwrap_or_default();
    match field.kind {
        "flag" => sentences.push("Booleans and their words are taken too.".to_owned()),
        "integer" | "number" => sentences.push("Its digits in a string are taken too.".to_owned()),
        "only" => sentences.push("Any other value is refused.".to_owned()),
        "names" => sentences.push(format!("Names with commas between them, at most {most}.")),
        "numbers" => sentences.push(format!(
            "One number for all, or several with commas between them; {} to {most}.",
            field.minimum.unwrap_or_default()
        )),
        "image or address" => sentences.push("An http or https address, base64, or a data URI.".to_owned()),
        _ => {}
    }
    if field.unit == Some("bytes") {
        sentences.push(format!("At most {most} bytes."));
    }
    if !field.aliases.is_empty() {
        sentences.push(format!("Also as {}.", field.aliases.join(", ")));
    }
    if let Some(otherwise) = field.otherwise {
        sentences.push(format!("Without it: {otherwise}."));
    }
    match field.effect {
        Effect::Since(_) => {}
        Effect::NotYet(_) => {
            sentences.push("It has no effect in this version, which the reply's `warning` says.".to_owned())
        }
        Effect::With(other) => sentences.push(format!("It counts together with `{other}`.")),
        Effect::Never => sentences.push("It is taken and has no meaning here.".to_owned()),
    }
    sentences.join(" ")
}

/// The kind of a value with its bounds.
pub(super) fn value_of(field: &FieldDescription) -> String {
    if !field.choices.is_empty() {
        return field.choices.join(", ");
    }
    match (field.minimum, field.maximum, field.unit) {
        (Some(least), Some(most), _) => format!("{}, {least} to {most}", field.kind),
        (None, Some(most), Some(unit)) => format!("{}, at most {most} {unit}", field.kind),
        _ => field.kind.to_owned(),
    }
}

/// What is used without it, for people.
pub(super) fn default_of(field: &FieldDescription) -> String {
    match &field.default {
        Some(Value::String(word)) => word.clone(),
        Some(value) => value.to_string(),
        None if field.required => "required".to_owned(),
        None => String::new(),
    }
}
