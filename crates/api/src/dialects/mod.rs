//! The vendors' API shapes, one folder each, and the lenient reading of bodies that they share.
//!
//! The dialects do not know each other; `field`, `json`, `multipart`, `lenient` and `inline_image` know no dialect.

pub(crate) mod a1111;
mod endpoints;
pub(crate) mod field;
mod ignored;
pub(crate) mod inline_image;
pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod modelslab;
pub(crate) mod multipart;
pub(crate) mod novita;
pub(crate) mod openai;

pub(crate) use endpoints::fields_of;
pub use endpoints::{EndpointFields, endpoint_fields};
pub use field::{Effect, FieldDescription};
pub(crate) use ignored::ignored_header;
