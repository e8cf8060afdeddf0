//! The vendors' API shapes, one folder each, and the lenient reading of bodies that they share.
//!
//! The dialects do not know each other; `json`, `lenient` and `inline_picture` know no dialect.

mod ignored;
pub(crate) mod inline_picture;
pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod modelslab;
pub(crate) mod novita;

pub(crate) use ignored::ignored_header;
