//! Novita's dialect: `POST /v3/lcm-img2img`, the model lists and the user call. Quirks with their sources: `README.md`.

mod auth;
mod convert;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod models;
mod models_v2;
mod query;
mod routes;
mod wire;

pub(crate) use error::edge_failure;
pub(crate) use fields::ENDPOINTS;
pub(crate) use routes::routes;
