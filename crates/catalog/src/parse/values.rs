//! Reads values of TOML as the types that entries have, with a fault where they are of another.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::entry_reader::{EntryReader, Placed};

impl EntryReader<'_> {
    /// A list of texts; none where the key is missing.
    pub(super) fn texts(&mut self, table: &DeTable<'_>, key: &str) -> Vec<Placed> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let wrong = format!("`{key}` must be a list of texts, like [\"one\", \"two\"]");
        let DeValue::Array(values) = value.get_ref() else {
            self.fault(&value.span(), wrong);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            if let DeValue::String(text) = value.get_ref() {
                texts.push((text.clone().into_owned(), value.span()));
            } else {
                self.fault(&value.span(), wrong.clone());
            }
        }
        texts
    }

    pub(super) fn flag(&mut self, table: &DeTable<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            return Some(*flag);
        }
        self.fault(&value.span(), format!("`{key}` must be true or false"));
        None
    }

    /// A whole number from 0 to `largest`.
    pub(super) fn whole(
        &mut self,
        value: &DeValue<'_>,
        place: &Range<usize>,
        (what, largest): (&str, u32),
    ) -> Option<u32> {
        let digits = whole_digits(value);
        let number = digits.and_then(|digits| digits.parse::<u32>().ok());
        let number = number.filter(|number| *number <= largest);
        if number.is_none() {
            self.fault(
                place,
                format!("{what} must be a whole number from 0 to {largest}"),
            );
        }
        number
    }

    /// A number that is neither infinite nor nothing.
    pub(super) fn number(&mut self, value: &DeValue<'_>, place: &Range<usize>, what: &str) -> Option<f64> {
        let digits = if let DeValue::Float(digits) = value {
            Some(digits.as_str())
        } else {
            whole_digits(value)
        };
        let number = digits.and_then(|digits| digits.parse::<f64>().ok());
        let number = number.filter(|number| number.is_finite());
        if number.is_none() {
            self.fault(place, format!("{what} must be a number, like 0.8"));
        }
        number
    }
}

/// The digits of a whole number that is written in the usual way.
fn whole_digits<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    let DeValue::Integer(digits) = value else {
        return None;
    };
    (digits.radix() == 10).then(|| digits.as_str())
}
