//! Fields as data: everything that one field of an endpoint takes and means, said once.
//!
//! A dialect's `fields.rs` is a table of these. Reading, error texts, warnings about fields without effect, which fields
//! are unknown, and the documentation are all derived from it, so that no range stands in two places.

use std::ops::RangeInclusive;

use serde::Serialize;
use serde_json::Value;

use super::json::{Fields, Json};
use super::lenient::{FieldError, integer_in, number_in};

/// One field. `K` is what it takes.
#[derive(Clone, Debug)]
pub(crate) struct Field<K> {
    pub(crate) name: &'static str,
    /// Other names that clients have for it. The first name that has a value counts.
    pub(crate) aliases: &'static [&'static str],
    pub(crate) kind: K,
    pub(crate) effect: Effect,
    /// What it is for, in one sentence.
    pub(crate) text: &'static str,
}

/// Since when a field does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Since this version.
    Since(&'static str),
    /// Read, checked, and when it is asked for named in the reply's `warning` under this name.
    NotYet(&'static str),
    /// Says more about this other field, and has an effect when that one has.
    With(&'static str),
    /// Taken because clients send it, and without a meaning here.
    Never,
}

impl<K> Field<K> {
    /// A field with one name that has had an effect since the first version.
    pub(crate) const fn new(name: &'static str, kind: K, text: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            kind,
            effect: Effect::Since("0.1.0"),
            text,
        }
    }

    /// Its name and then the others.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<K> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// No default: a call without the field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Required;

/// What happens without the field, where that is no plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Otherwise(pub(crate) &'static str);

/// A text of so many characters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<D> {
    pub(crate) max_chars: usize,
    pub(crate) default: D,
}

/// A name of something, in the catalogue for example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<D> {
    pub(crate) default: D,
}

/// Names with commas between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) max: usize,
}

/// A whole number.
#[derive(Clone, Debug)]
pub(crate) struct Whole<D> {
    pub(crate) range: RangeInclusive<i64>,
    pub(crate) default: D,
}

/// A number.
#[derive(Clone, Debug)]
pub(crate) struct Number<D> {
    pub(crate) range: RangeInclusive<f64>,
    pub(crate) default: D,
}

/// One number for all names of another field, or several with commas between them.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    pub(crate) range: RangeInclusive<f64>,
    pub(crate) default: f64,
}

/// Yes or no.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) default: bool,
}

/// One of a few words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<D> {
    pub(crate) words: &'static [&'static str],
    pub(crate) default: D,
}

/// An image file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image<D> {
    pub(crate) max_bytes: usize,
    /// Whether an address may stand for the file.
    pub(crate) address: bool,
    pub(crate) default: D,
}

/// An array of image files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Images {
    pub(crate) max: usize,
    /// Of each file.
    pub(crate) max_bytes: usize,
}

/// One of a few values that mean "not this", where what the field is for is refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Only {
    /// As JSON writes them; null always is one.
    pub(crate) values: &'static [&'static str],
}

/// An `http` or `https` address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) max_bytes: usize,
}

/// A number or a text that is only passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label<D> {
    pub(crate) max_bytes: usize,
    pub(crate) default: D,
}

/// An array of objects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListOf {
    pub(crate) max: usize,
    pub(crate) members: Table,
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectOf {
    pub(crate) members: Table,
}

/// Any value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anything;

/// A kind of field that can be read out of one value without knowing the dialect.
pub(crate) trait Read {
    type Value;

    /// None when the value means "not given". `name` is the one that the caller used.
    fn read(&self, name: &str, value: Json) -> Result<Option<Self::Value>, FieldError>;
}

impl<D> Read for Whole<D> {
    type Value = i64;

    fn read(&self, name: &str, value: Json) -> Result<Option<i64>, FieldError> {
        integer_in(name, value, self.range.clone())
    }
}

impl<D> Read for Number<D> {
    type Value = f64;

    fn read(&self, name: &str, value: Json) -> Result<Option<f64>, FieldError> {
        number_in(name, value, self.range.clone())
    }
}

impl<K: Read> Field<K> {
    /// Takes the field out of a body under all its names, and gives the first value there is. Every name is read, so that a
    /// value that cannot be accepted is refused under whichever name it came.
    pub(crate) fn read(&self, fields: &mut Fields) -> Result<Option<K::Value>, FieldError> {
        self.read_at(None, fields)
    }

    /// The same for a member of an object that stands at `place` in the body.
    pub(crate) fn read_at(
        &self,
        place: Option<&str>,
        fields: &mut Fields,
    ) -> Result<Option<K::Value>, FieldError> {
        let mut found = None;
        for name in self.names() {
            let value = fields.take(name);
            let shown = place.map(|place| format!("{place}.{name}"));
            let read = self.kind.read(shown.as_deref().unwrap_or(name), value)?;
            found = found.or(read);
        }
        Ok(found)
    }
}

/// What a table holds: any field.
pub(crate) trait AnyField: std::fmt::Debug + Sync {
    /// Its name and then its other ones.
    fn all_names(&self) -> Vec<&'static str>;
    /// Since when it does something.
    fn effect(&self) -> Effect;
    /// What there is to know about it.
    fn describe(&self) -> FieldDescription;
}

/// The fields of an endpoint or of an object in it, in the order of the documentation.
pub(crate) type Table = &'static [&'static dyn AnyField];

/// All names that tables know.
pub(crate) fn names(tables: &[Table]) -> Vec<&'static str> {
    let fields = tables.iter().flat_map(|table| table.iter());
    fields.flat_map(|field| field.all_names()).collect()
}

/// The descriptions of all fields of the tables.
pub(crate) fn describe(tables: &[Table]) -> Vec<FieldDescription> {
    let fields = tables.iter().flat_map(|table| table.iter());
    fields.map(|field| field.describe()).collect()
}

/// One field, for documentation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldDescription {
    /// As the caller writes it.
    pub name: &'static str,
    /// Other names for it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub aliases: &'static [&'static str],
    /// What a value is: `text`, `name`, `names`, `integer`, `number`, `numbers`, `flag`, `choice`, `image`, `images`,
    /// `image or address`, `address`, `label`, `list`, `object`, `only` or `anything`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The smallest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// The largest number, or the most of what `unit` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    /// What `maximum` counts, where the value itself is no number: `characters`, `bytes` or `items`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// The words to choose from.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub choices: &'static [&'static str],
    /// Whether a call without it is refused.
    pub required: bool,
    /// The value that is used without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What happens without it, where that is no plain value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<&'static str>,
    /// Since when it does something.
    pub effect: Effect,
    /// What it is for.
    pub text: &'static str,
    /// The members of an object, or of each object in a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Self>,
}

/// What a kind and its default add to a description.
pub(crate) trait Describe {
    fn describe(&self, description: &mut FieldDescription);
}

impl<K: Describe + std::fmt::Debug + Sync> AnyField for Field<K> {
    fn all_names(&self) -> Vec<&'static str> {
        self.names().collect()
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn describe(&self) -> FieldDescription {
        let mut description = FieldDescription {
            name: self.name,
            aliases: self.aliases,
            kind: "anything",
            minimum: None,
            maximum: None,
            unit: None,
            choices: &[],
            required: false,
            default: None,
            otherwise: None,
            effect: self.effect,
            text: self.text,
            members: Vec::new(),
        };
        self.kind.describe(&mut description);
        description
    }
}

mod describe;
