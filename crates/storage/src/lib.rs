//! Pictures in an object store, and the signed links that lead to them for a while.
//!
//! Invariant: an object's name is an [`pentimento_types::ImageKey`], made by us; nothing a caller writes becomes a path.

mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod image_store;
mod link;
mod retention;

pub use error::StorageError;
pub use image_store::{ImageStore, StorageConfig, content_type};
pub use link::{LinkError, LinkSigner, secret_file};
