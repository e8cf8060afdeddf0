//! Reads a JSON body into the fields that an endpoint knows, and the names of those it does not.
//!
//! Invariant: memory is bounded by the body itself plus [`MAX_VALUES`] values, whatever the body holds;
//! unknown fields are walked over, never built. Depth is bounded by `serde_json` (128 levels).

use std::cell::{Cell, RefCell};
use std::fmt;

use bytes::Bytes;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

/// How many values the known fields of one body may hold together. Real requests hold about thirty.
const MAX_VALUES: u32 = 4096;
/// How many fields a body may have at the top.
const MAX_FIELDS: usize = 1024;
/// How many bytes their names may have together.
const MAX_NAME_BYTES: usize = 64 * 1024;
/// How many characters of an unknown name inside of an object are remembered.
const MAX_SHOWN: usize = 64;
/// How many unknown fields are remembered by name.
const MAX_IGNORED: usize = 16;

/// A body has more names than anybody means.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManyNames {
    /// Doubled ones are counted each time.
    #[error("more than {MAX_FIELDS} fields; send only those that the call takes")]
    Fields,
    /// All names together.
    #[error(
        "names of fields with more than {MAX_NAME_BYTES} bytes together; send only those that the call takes"
    )]
    Bytes,
}

/// Counts the fields of one body, JSON or form, as they are read.
#[derive(Debug, Default)]
pub(crate) struct NameCount {
    fields: usize,
    bytes: usize,
}

impl NameCount {
    /// One more.
    pub(crate) fn add(&mut self, name: &str) -> Result<(), TooManyNames> {
        self.fields += 1;
        self.bytes = self.bytes.saturating_add(name.len());
        if self.fields > MAX_FIELDS {
            Err(TooManyNames::Fields)
        } else if self.bytes > MAX_NAME_BYTES {
            Err(TooManyNames::Bytes)
        } else {
            Ok(())
        }
    }
}

/// The most that [`copies`] says.
pub(crate) const MAX_COPIES: usize = 3;

/// How many times its own size the fields that are read out of a body may take: all texts are copied, and those with
/// escapes are put together in a place that grows by doubling.
pub(crate) fn copies(body: &[u8]) -> usize {
    if body.contains(&b'\\') { MAX_COPIES } else { 1 }
}

/// A JSON value, with integers kept exactly.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) enum Json {
    /// `null`, or a field that is absent: both dialects treat them alike.
    #[default]
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number of 64 bits.
    Integer(i128),
    /// Any other number; finite.
    Number(f64),
    /// A string.
    Text(String),
    /// A file in a form; no JSON body has one.
    File(Bytes),
    /// An array.
    List(Vec<Json>),
    /// An object in its own order, without doubled names.
    Object(Vec<(String, Json)>),
}

/// The known fields of a body by their canonical names, and the names of the others.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields {
    known: Vec<(String, Json)>,
    ignored: Vec<String>,
}

impl Fields {
    /// Reads the members of an object found inside a body.
    pub(crate) fn from_object(members: Vec<(String, Json)>, names: &[&str]) -> Self {
        let mut fields = Self::default();
        for (name, value) in members {
            match canonical(&name, names) {
                Some(known) => fields.known.push((known.to_owned(), value)),
                // They are only shown.
                None if fields.ignored.len() < MAX_IGNORED => {
                    fields.ignored.push(name.chars().take(MAX_SHOWN).collect());
                }
                None => {}
            }
        }
        fields
    }

    /// A field that stays; `Null` when it was not sent, or was taken.
    pub(crate) fn peek(&self, name: &str) -> &Json {
        let found = self.known.iter().find(|(known, _)| known == name);
        found.map_or(&Json::Null, |(_, value)| value)
    }

    /// Takes a field out; `Null` when it was not sent.
    pub(crate) fn take(&mut self, name: &str) -> Json {
        let found = self.known.iter_mut().find(|(known, _)| known == name);
        found.map(|(_, value)| std::mem::take(value)).unwrap_or_default()
    }

    /// Whether a field was sent, be it as null.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.known.iter().any(|(known, _)| known == name)
    }

    /// Whether a field has a value that is more than nothing.
    pub(crate) fn has(&self, name: &str) -> bool {
        let nothing = |value: &Json| match value {
            Json::Null => true,
            Json::Text(text) => text.trim().is_empty(),
            Json::Bool(_)
            | Json::Integer(_)
            | Json::Number(_)
            | Json::File(_)
            | Json::List(_)
            | Json::Object(_) => false,
        };
        self.known
            .iter()
            .any(|(known, value)| known == name && !nothing(value))
    }

    /// The names of the fields that the endpoint does not know.
    pub(crate) fn into_ignored(self) -> Vec<String> {
        self.ignored
    }
}

/// Why a body is not the JSON object that is needed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    /// No bytes at all.
    #[error("the body is empty; send a JSON object")]
    Empty,
    /// Not UTF-8, or UTF-8 with a mark in front.
    #[error("the body is {found}; send JSON as UTF-8 without a byte order mark")]
    Encoding {
        /// What it looks like.
        found: &'static str,
    },
    /// A form, or something else that does not begin with `{`.
    #[error("the body is not a JSON object; send one, with Content-Type application/json")]
    NotAnObject,
    /// The grammar is broken, or a bound is reached.
    #[error("the body is not valid JSON: {detail}")]
    Invalid {
        /// The top-level field that was being read.
        field: Option<String>,
        /// What is wrong and where.
        detail: String,
    },
}

/// Reads the whole body. `names` are the fields that the endpoint knows, in snake case; the camel-case
/// spelling of each is taken too, as a protobuf-JSON decoder does.
pub(crate) fn parse_object(body: &[u8], names: &[&str]) -> Result<Fields, JsonError> {
    match body {
        [] => return Err(JsonError::Empty),
        [0xEF, 0xBB, 0xBF, ..] => {
            return Err(JsonError::Encoding {
                found: "UTF-8 with a byte order mark",
            });
        }
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, b'{', ..] | [b'{', 0, ..] => {
            return Err(JsonError::Encoding { found: "UTF-16" });
        }
        _ => {}
    }
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(JsonError::Empty),
        Some(b'{') => {}
        Some(_) => return Err(JsonError::NotAnObject),
    }
    let reader = Reader {
        names,
        values_left: Cell::new(MAX_VALUES),
        current: RefCell::new(None),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let fields = deserializer
        .deserialize_map(&reader)
        .and_then(|fields| deserializer.end().map(|()| fields));
    fields.map_err(|error| JsonError::Invalid {
        field: reader.current.take(),
        detail: error.to_string(),
    })
}

/// The known name that `name` means, `modelName` for `model_name` too.
fn canonical<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let exact = names.iter().find(|known| **known == name);
    let camel = || {
        let snake = name
            .chars()
            .fold(String::with_capacity(name.len() + 4), |mut snake, c| {
                if c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
                snake
            });
        names.iter().find(|known| **known == snake)
    };
    let has_capitals = || name.len() <= 64 && name.bytes().any(|b| b.is_ascii_uppercase());
    exact.or_else(|| has_capitals().then(camel).flatten()).copied()
}

/// Walks the top-level object.
struct Reader<'n> {
    names: &'n [&'n str],
    values_left: Cell<u32>,
    current: RefCell<Option<String>>,
}

impl<'de> Visitor<'de> for &Reader<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut count = NameCount::default();
        while let Some(name) = map.next_key::<String>()? {
            count.add(&name).map_err(A::Error::custom)?;
            let Some(known) = canonical(&name, self.names) else {
                map.next_value_seed(Skipped)?;
                if fields.ignored.len() < MAX_IGNORED {
                    fields.ignored.push(name);
                }
                continue;
            };
            self.current.replace(Some(known.to_owned()));
            if fields.known.iter().any(|(have, _)| have == known) {
                return Err(A::Error::custom(format_args!("field `{known}` is given twice")));
            }
            let value = map.next_value_seed(Value {
                left: &self.values_left,
            })?;
            fields.known.push((known.to_owned(), value));
            self.current.replace(None);
        }
        Ok(fields)
    }
}

/// Builds a value of a known field, within the budget.
#[derive(Clone, Copy)]
struct Value<'b> {
    left: &'b Cell<u32>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values")));
        };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            members.push((name, map.next_value_seed(self)?));
        }
        if let Some(name) = doubled(&members) {
            let short: String = name.chars().take(40).collect();
            return Err(A::Error::custom(format_args!("field `{short}` is given twice")));
        }
        Ok(Json::Object(members))
    }
}

/// A name that comes twice. Sorted, because comparing each with each takes seconds for thousands of long names.
fn doubled(members: &[(String, Json)]) -> Option<&str> {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find_map(|pair| (pair[0] == pair[1]).then_some(pair[0]))
}

/// Walks over a value. Unlike serde's `IgnoredAny` it counts levels, because `serde_json` counts them in
/// `deserialize_any` only.
struct Skipped;

impl<'de> DeserializeSeed<'de> for Skipped {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key_seed(Self)?.is_some() {
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["model_name", "steps", "loras"];

    fn refused(body: impl AsRef<[u8]>) -> JsonError {
        parse_object(body.as_ref(), NAMES).unwrap_err()
    }

    #[test]
    fn known_fields_are_taken_and_the_others_named() {
        let body =
            br#" {"model_name":"m","steps":3,"extra_thing":[{"a":[1,2.5,null,true,"x"]}],"loras":null} "#;
        let mut fields = parse_object(body, NAMES).unwrap();
        assert_eq!(fields.take("model_name"), Json::Text("m".to_owned()));
        assert_eq!(fields.take("steps"), Json::Integer(3));
        assert_eq!(fields.take("loras"), Json::Null);
        assert_eq!(fields.take("absent"), Json::Null);
        assert_eq!(fields.into_ignored(), ["extra_thing"]);
    }

    #[test]
    fn camel_case_means_the_same_field() {
        let mut fields = parse_object(br#"{"modelName":"m","Steps":1,"MODEL":2}"#, NAMES).unwrap();
        assert_eq!(fields.take("model_name"), Json::Text("m".to_owned()));
        assert_eq!(fields.into_ignored(), ["Steps", "MODEL"]);
    }

    #[test]
    fn what_is_not_json_is_refused_with_the_reason() {
        assert_eq!(refused(b""), JsonError::Empty);
        assert_eq!(refused(b" \n\t"), JsonError::Empty);
        assert_eq!(refused(b"model_name=m&steps=3"), JsonError::NotAnObject);
        assert_eq!(refused(b"[{}]"), JsonError::NotAnObject);
        assert_eq!(refused("[".repeat(10_000)), JsonError::NotAnObject);
        assert!(matches!(refused(b"\xEF\xBB\xBF{}"), JsonError::Encoding { .. }));
        assert!(matches!(refused(b"\xFF\xFE{\0}\0"), JsonError::Encoding { .. }));
        assert!(matches!(refused(b"{\0}\0"), JsonError::Encoding { .. }));
        for bad in [
            &b"{} x"[..],
            b"{}{}",
            b"{\"a\":1,}",
            b"{\"a\":\"\xFF\"}",
            b"{'a':1}",
            b"{",
            b"{\"a\":\"\\ud800\"}",
        ] {
            assert!(matches!(refused(bad), JsonError::Invalid { .. }), "{bad:?}");
        }
    }

    #[test]
    fn a_broken_value_names_its_field() {
        for bad in ["NaN", "Infinity", "-", "1e400", "01", "tru"] {
            let error = refused(format!("{{\"model_name\":\"m\",\"steps\":{bad}}}"));
            assert!(
                matches!(&error, JsonError::Invalid { field: Some(field), .. } if field == "steps"),
                "{error:?}"
            );
        }
        let twice = refused(br#"{"steps":1,"steps":2}"#);
        assert!(twice.to_string().contains("`steps` is given twice"), "{twice}");
        let twice = refused(br#"{"model_name":1,"modelName":2}"#);
        assert!(
            twice.to_string().contains("`model_name` is given twice"),
            "{twice}"
        );
        let twice = refused(br#"{"loras":[{"a":1,"a":2}]}"#);
        assert!(twice.to_string().contains("`a` is given twice"), "{twice}");
    }

    #[test]
    fn depth_width_and_count_are_bounded() {
        for name in ["loras", "unknown"] {
            let deep = format!("{{\"{name}\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
            assert!(refused(&deep).to_string().contains("recursion limit"), "{name}");
            let deep = format!(
                "{{\"{name}\":{}1{}}}",
                "{\"a\":".repeat(10_000),
                "}".repeat(10_000)
            );
            assert!(refused(&deep).to_string().contains("recursion limit"), "{name}");
        }
        let wide = format!("{{\"loras\":[{}1]}}", "1,".repeat(100_000));
        assert!(refused(&wide).to_string().contains("more than 4096 values"));
        let many: String = (0..100_000).map(|i| format!("\"k{i}\":0,")).collect();
        assert!(
            refused(format!("{{{many}\"z\":0}}"))
                .to_string()
                .contains("more than 1024 fields")
        );
        let long: String = (0..70)
            .map(|i| format!("\"{i}{}\":0,", "x".repeat(1000)))
            .collect();
        assert!(
            refused(format!("{{{long}\"z\":0}}"))
                .to_string()
                .contains("more than 65536 bytes")
        );
        let unknown = format!("{{\"unknown\":[{}1]}}", "1,".repeat(100_000));
        assert!(parse_object(unknown.as_bytes(), NAMES).is_ok());
    }

    #[test]
    fn whole_numbers_stay_exact() {
        let mut fields = parse_object(
            br#"{"steps":18446744073709551615,"loras":-9223372036854775808}"#,
            NAMES,
        )
        .unwrap();
        assert_eq!(fields.take("steps"), Json::Integer(u64::MAX.into()));
        assert_eq!(fields.take("loras"), Json::Integer(i64::MIN.into()));
    }
}
