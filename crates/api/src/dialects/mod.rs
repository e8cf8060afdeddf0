//! The vendors' API shapes, one folder each, and the lenient reading of bodies that they share.
//!
//! The dialects do not know each other; `json`, `lenient` and `inline_picture` know no dialect.

pub(crate) mod inline_picture;
pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod novita;
