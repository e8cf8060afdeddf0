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
mod s3;

pub use error::StorageError;
pub use image_store::{Access, ImageStore, StorageConfig, content_type};
pub use link::{LinkError, LinkSigner, replace_secret_file, secret_file};
pub use s3::{S3Config, S3Links, S3PlaceError};
