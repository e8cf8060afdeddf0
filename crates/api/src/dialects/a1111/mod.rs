//! A1111's dialect: `/sdapi/v1`, the calls of AUTOMATIC1111's web UI and of its forks. Quirks with their sources: `README.md`.

mod auth;
mod convert;
mod error;
mod extras;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod generation;
mod interrupts;
mod lists;
mod model_names;
mod options;
mod png_info;
mod previews;
mod progress;
mod prompt_tags;
mod reader;
mod reply;
mod routes;
mod samplers;

pub(crate) use error::edge_failure;
pub(crate) use fields::ENDPOINTS;
pub(crate) use interrupts::Interrupts;
pub(crate) use options::AllOptions;
pub(crate) use previews::LivePreviews;
pub(crate) use routes::routes;

/// The dialect's name in the record of a job.
const NAME: &str = "a1111";
