//! Picture files to pixels and back: PNG, JPEG and WebP, told apart by their first bytes and never by a name.
//!
//! Invariant: whatever the bytes are, [`decode`] answers with a picture within the limits or with an error; the size is
//! checked in the header before any pixel is allocated, and a panic of a decoder ends here.

mod decode;
mod encode;
mod exif;
mod jpeg_structure;
mod metadata;
mod resize;

pub use decode::{decode, decoded_bytes};
pub use encode::encode;
pub use metadata::{AdapterRecord, ImageMetadata, read_metadata};
pub(crate) use resize::{resized, to_file};
