//! OpenAI's calls for images: `POST /v1/images/edits`, `/generations` and `/variations`, as its published clients make them.
//!
//! Bodies are JSON or forms with files; replies are signed links, files in base64, or a stream of events. What of it means
//! what here is in `docs/openai.md`.

mod auth;
mod body;
mod convert;
mod error;
pub(crate) mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod images;
mod reader;
mod reply;
mod routes;
mod stream;

pub(crate) use error::{OpenAiError, edge_failure};
pub(crate) use fields::ENDPOINTS;
pub(crate) use reader::flag;
pub(crate) use routes::{read_arguments, routes, submission};

/// The dialect's name in the records of its jobs.
pub(crate) const NAME: &str = "openai";
