//! Image files to pixels and back: PNG, JPEG and WebP, told apart by their first bytes and never by a name.
//!
//! Invariant: whatever the bytes are, [`decode`] answers with an image within the limits or with an error; the size is
//! checked in the header before any pixel is allocated, and a panic of a decoder ends here.

mod container;
mod decode;
mod decoding;
mod encode;
mod exif;
mod jpeg_file;
mod jpeg_structure;
mod manifest;
mod manifest_signer;
mod metadata;
mod orientation;
mod pixels;
mod png_file;
mod provenance;
mod refusal;
mod resize;
mod watermark;
mod webp_file;

pub use decode::{decode, decode_mask, decode_transparent_mask, format_of, look_at};
pub(crate) use decode::{decode_drawn_mask, decode_on_white};
pub use decoding::Decoding;
pub use encode::encode;
pub(crate) use encode::{encode_as, encode_enlarged, encode_preview};
pub use manifest::FoundManifest;
#[cfg(all(test, feature = "c2pa"))]
pub(crate) use manifest_signer::testing;
pub use manifest_signer::{ManifestSigner, ManifestSignerError, Origin, ParentManifest};
pub use metadata::{AdapterRecord, ImageMetadata, read_metadata, read_parameters};
pub use pixels::{DecodedMask, MaskReading};
pub use provenance::{Marks, Provenance, SourceType, read_provenance, read_provenance_and_pixels};
pub use resize::resized;
pub(crate) use resize::{resized_part, to_file};
pub(crate) use watermark::MARK_SEARCH_BYTES;
pub use watermark::{has_watermark, with_watermark};
