//! What the configurations of all networks share: one value or one per level, and the refusal of what we do not build.

use serde::Deserialize;

/// A number that holds for every level, or one for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(usize),
    Many(Vec<usize>),
}

impl OneOrMany {
    /// One number for each of `levels`.
    pub(crate) fn per_level(self, field: &str, levels: usize) -> Result<Vec<usize>, String> {
        let values = match self {
            Self::One(value) => vec![value; levels],
            Self::Many(values) => values,
        };
        if values.len() != levels {
            return Err(format!(
                "`{field}` has {} entries, expected {levels}",
                values.len()
            ));
        }
        if values.contains(&0) {
            return Err(format!("`{field}` has a zero"));
        }
        Ok(values)
    }
}

/// A field whose every other value means an architecture that this version does not build.
/// An absent or null field has the library's default, which is always the supported value.
pub(crate) fn only(
    field: &str,
    found: Option<&serde_json::Value>,
    supported: &serde_json::Value,
) -> Result<(), String> {
    let equal = |value: &serde_json::Value| match (value.as_f64(), supported.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-12,
        _ => value == supported,
    };
    match found {
        None | Some(serde_json::Value::Null) => Ok(()),
        Some(value) if equal(value) => Ok(()),
        Some(value) => Err(format!("`{field}` is {value}, only {supported} is supported")),
    }
}

/// Refuses a width that the groups of a norm do not divide, so that no layer can divide by zero or leave a remainder.
pub(crate) fn divides(groups: usize, what: &str, widths: &[usize]) -> Result<(), String> {
    if widths.is_empty() || groups == 0 {
        return Err(format!("`{what}` or a width of the network is empty or zero"));
    }
    match widths.iter().find(|width| **width == 0 || *width % groups != 0) {
        Some(width) => Err(format!("`{what}` {groups} does not divide the width {width}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_holds_for_every_level() {
        assert_eq!(OneOrMany::One(8).per_level("x", 3), Ok(vec![8, 8, 8]));
        assert!(OneOrMany::Many(vec![1, 2]).per_level("x", 3).is_err());
        assert!(OneOrMany::Many(vec![1, 0, 2]).per_level("x", 3).is_err());
        assert!(divides(0, "groups", &[8]).is_err() && divides(3, "groups", &[8]).is_err());
    }

    #[test]
    fn numbers_are_equal_whatever_their_spelling() {
        let one: serde_json::Value = serde_json::from_str("1.0").unwrap();
        assert!(only("x", Some(&one), &serde_json::json!(1)).is_ok());
        assert!(only("x", Some(&serde_json::json!("gelu")), &serde_json::json!("silu")).is_err());
    }
}
