//! The query of the model lists, in every spelling that the clients use.
//!
//! `filter.types` (documentation), `filter.type` (Python), `filter[types]` (JS 3), `type` (the seed) are one filter;
//! so it goes for the others. Unknown parameters are ignored.

use super::fields::LIMIT;
use crate::dialects::field::Read as _;
use crate::dialects::json::Json;
use crate::dialects::lenient::FieldError;

/// Which models, and which page of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModelQuery {
    /// Empty means all types.
    pub(super) types: Vec<String>,
    /// `private` or `public`.
    pub(super) visibility: Option<String>,
    /// Where they come from; empty means from anywhere.
    pub(super) sources: Vec<String>,
    /// Lower-case part of a name.
    pub(super) text: Option<String>,
    pub(super) is_sdxl: Option<bool>,
    pub(super) is_inpainting: Option<bool>,
    pub(super) is_nsfw: Option<bool>,
    /// 1 to 100.
    pub(super) limit: usize,
    /// How many models to pass over.
    pub(super) offset: usize,
}

impl ModelQuery {
    /// Reads the part of the address after `?`.
    pub(super) fn parse(query: &str) -> Result<Self, FieldError> {
        let mut found = Self {
            limit: page(LIMIT.kind.default),
            ..Self::default()
        };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            let own = || value.to_lowercase();
            let words = || value.split(',').map(|word| word.trim().to_lowercase());
            match plain(&name).as_str() {
                "types" | "type" => found.types.extend(words()),
                "source" | "sources" => found.sources.extend(words()),
                "visibility" => found.visibility = Some(own()),
                "query" | "querystring" => found.text = Some(own()),
                "is_sdxl" => found.is_sdxl = Some(flag(&name, value)?),
                "is_inpainting" => found.is_inpainting = Some(flag(&name, value)?),
                "is_nsfw" => found.is_nsfw = Some(flag(&name, value)?),
                "limit" => found.limit = limit(&name, value)?,
                "cursor" => found.offset = cursor(&name, value)?,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// `filter.types`, `filter[types]` and `types` are `types`.
fn plain(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let inner = ["filter", "pagination"].iter().find_map(|group| {
        let rest = name.strip_prefix(group)?;
        let bracketed = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        rest.strip_prefix('.').or(bracketed)
    });
    inner.unwrap_or(&name).trim_end_matches("[]").to_owned()
}

/// Python sends `True`, the others `true` or `1`.
fn flag(name: &str, value: &str) -> Result<bool, FieldError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(FieldError::value(name, "must be true or false")),
    }
}

fn limit(name: &str, value: &str) -> Result<usize, FieldError> {
    let limit = LIMIT.kind.read(name, Json::Text(value.to_owned()))?;
    Ok(page(limit.unwrap_or(LIMIT.kind.default)))
}

fn page(limit: i64) -> usize {
    usize::try_from(limit).expect("the range of the table begins at 1")
}

/// `c_<offset>` with any number of `c_`, because Python puts one more in front; or bare digits.
fn cursor(name: &str, value: &str) -> Result<usize, FieldError> {
    value
        .trim_start_matches("c_")
        .parse()
        .map_err(|_| FieldError::value(name, "must be a next_cursor of this call, such as c_100"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> ModelQuery {
        ModelQuery::parse(query).unwrap()
    }

    #[test]
    fn the_captured_queries_are_understood() {
        let python = parse(
            "filter.visibility=public&filter.type=checkpoint&filter.is_sdxl=False&filter.query=dream\
             &pagination.cursor=c_0&filter.is_inpainting=False&pagination.limit=2",
        );
        assert_eq!(
            python,
            ModelQuery {
                types: vec!["checkpoint".to_owned()],
                visibility: Some("public".to_owned()),
                sources: vec![],
                text: Some("dream".to_owned()),
                is_sdxl: Some(false),
                is_inpainting: Some(false),
                is_nsfw: None,
                limit: 2,
                offset: 0,
            }
        );
        let js = parse(
            "filter%5Bvisibility%5D=public&filter%5Btypes%5D=checkpoint&filter%5Bis_sdxl%5D=false\
             &pagination%5Blimit%5D=2&pagination%5Bcursor%5D=c_0",
        );
        assert_eq!(
            (js.types, js.limit, js.is_sdxl),
            (vec!["checkpoint".to_owned()], 2, Some(false))
        );
    }

    #[test]
    fn types_repeat_and_cursors_stack() {
        let query = parse("filter.types=lora&filter.types=vae,checkpoint&type=controlnet&filter.types[]=x");
        assert_eq!(query.types, ["lora", "vae", "checkpoint", "controlnet", "x"]);
        for (text, offset) in [("c_100", 100), ("c_c_100", 100), ("7", 7), ("", 0), ("c_0", 0)] {
            assert_eq!(parse(&format!("pagination.cursor={text}")).offset, offset);
        }
        assert_eq!(parse("").limit, 100);
        assert_eq!(parse("x=1"), parse(""));
        assert_eq!(
            parse("filter.source=Civitai,training").sources,
            ["civitai", "training"]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (query, field) in [
            ("pagination.limit=0", "pagination.limit"),
            ("pagination.limit=101", "pagination.limit"),
            ("pagination%5Blimit%5D=x", "pagination[limit]"),
            ("pagination.cursor=zzz", "pagination.cursor"),
            ("pagination.cursor=c_-1", "pagination.cursor"),
            ("pagination.cursor=c_99999999999999999999", "pagination.cursor"),
            ("filter.is_sdxl=maybe", "filter.is_sdxl"),
        ] {
            assert_eq!(ModelQuery::parse(query).unwrap_err().field, field);
        }
    }
}
