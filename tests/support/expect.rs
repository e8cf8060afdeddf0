//! Compares a reply with the part of it that a scenario states.
//!
//! Objects may have more keys than stated; arrays must have as many items. `{"$contains": "x"}`, `{"$starts": "x"}`,
//! `{"$ends": "x"}` and `{"$is": "string"}` stand for values that are not known exactly.

use serde_json::Value;

/// What differs, as one line for each difference; empty when all is as stated.
pub(crate) fn differences(place: &str, stated: &Value, found: &Value) -> Vec<String> {
    if let Some(difference) = matcher(place, stated, found) {
        return difference;
    }
    match (stated, found) {
        (Value::Object(stated), Value::Object(found)) => stated
            .iter()
            .flat_map(|(key, value)| match found.get(key) {
                Some(found) => differences(&format!("{place}.{key}"), value, found),
                None => vec![format!("{place}.{key} is missing")],
            })
            .collect(),
        (Value::Array(stated), Value::Array(found)) if stated.len() == found.len() => {
            let pairs = stated.iter().zip(found).enumerate();
            pairs
                .flat_map(|(at, (stated, found))| differences(&format!("{place}[{at}]"), stated, found))
                .collect()
        }
        _ if same(stated, found) => Vec::new(),
        _ => vec![format!("{place} is {found}, expected {stated}")],
    }
}

fn matcher(place: &str, stated: &Value, found: &Value) -> Option<Vec<String>> {
    let stated = stated.as_object().filter(|stated| stated.len() == 1)?;
    let (name, wanted) = stated.iter().next()?;
    let wanted = wanted.as_str().unwrap_or_default();
    let text = found.as_str().unwrap_or_default();
    let holds = match name.as_str() {
        "$contains" => text.contains(wanted),
        "$starts" => text.starts_with(wanted),
        "$ends" => text.ends_with(wanted),
        "$is" => {
            let kind = match found {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            kind == wanted
        }
        _ => return None,
    };
    Some(if holds {
        Vec::new()
    } else {
        vec![format!("{place} is {found}, expected {name} {wanted:?}")]
    })
}

/// 1 and 1.0 are one number.
fn same(stated: &Value, found: &Value) -> bool {
    stated == found || (stated.is_number() && stated.as_f64() == found.as_f64())
}

#[test]
fn a_part_is_compared_and_the_rest_may_be_anything() {
    use serde_json::json;
    let found = json!({"code": 400, "message": "steps must be", "list": [1, 2], "more": null});
    assert!(
        differences(
            "reply",
            &json!({"code": 400, "message": {"$contains": "must"}}),
            &found
        )
        .is_empty()
    );
    assert_eq!(differences("reply", &json!({"list": [1]}), &found).len(), 1);
    assert_eq!(
        differences("reply", &json!({"absent": 1, "code": {"$is": "string"}}), &found).len(),
        2
    );
}
