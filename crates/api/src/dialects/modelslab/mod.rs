//! ModelsLab's enterprise dialect: img2img, inpaint, fetch and the management calls. Quirks with their sources:
//! `README.md`.

mod auth;
mod convert;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod key_scan;
mod management;
mod note;
mod number;
mod opened_call;
mod operating;
mod pictures;
mod reader;
mod reply;
mod routes;
mod webhook;
mod wire;

pub(crate) use error::edge_failure;
pub(crate) use fields::ENDPOINTS;
pub(crate) use routes::{documented_path, routes};
pub(crate) use webhook::webhook_body;

/// This dialect in the records of jobs.
pub(crate) const NAME: &str = "modelslab";
