//! Brings the models of the catalogue onto this machine: from a Hugging Face hub, from https, and checked against their
//! sha256.
//!
//! Files lie in the cache that Python's `huggingface_hub` uses, so what either has fetched, both find. A file appears under
//! its name only when it is whole; what a killed download has left is gone on with.
//! Invariant: no name that a hub sends leads out of the cache folder, and the token is sent to the hub itself only.

mod cache;
mod checks;
mod choice;
mod client;
mod completed;
mod disk_space;
mod download;
mod error;
mod hub;
mod inner;
mod listing;
mod lock;
mod on_disk;
mod places;
mod progress;
mod retry;
mod settings;
#[cfg(test)]
mod tests;
mod transfer;
mod works;
mod writer;

pub use error::HubError;
pub use hub::{Found, Hub};
pub use progress::{Progress, Stage};
pub use settings::{HubSettings, Token};
pub use works::ModelWork;
