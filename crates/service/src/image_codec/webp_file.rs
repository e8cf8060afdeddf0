//! WebP files: which chunks they have, and their pixels.

use std::io::Cursor;

use image::ImageDecoder as _;
use image::codecs::webp::WebPDecoder;

use super::decoding::Decoding;
use super::orientation::Blocks;
use super::pixels::Pixels;
use super::refusal::{check_size, damaged, undecodable};
use crate::{InputLimits, ServiceError};

/// What the decoder may allocate beside the pixels.
const WORKING_BYTES: u64 = 64 << 20;

/// Bytes for a pixel: the planes of a lossy file or the ARGB of a lossless one, up to four samples, RGB beside them, and
/// the same turned upright.
const WORKING_BYTES_OF_A_PIXEL: u64 = 4 + 4 + 3 + 3;

pub(super) fn look_at(bytes: &[u8], limits: InputLimits) -> Result<Decoding, ServiceError> {
    let size = check_size(decoder(bytes)?.dimensions(), limits)?;
    Ok(Decoding {
        size,
        working_bytes: size.pixels() * WORKING_BYTES_OF_A_PIXEL,
    })
}

pub(super) fn decode(bytes: &[u8], limits: InputLimits) -> Result<Pixels, ServiceError> {
    let fail = |error: image::ImageError| damaged("WebP", &error);
    let mut decoder = decoder(bytes)?;
    let size = check_size(decoder.dimensions(), limits)?;
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(decoder.total_bytes().saturating_mul(4) + WORKING_BYTES);
    decoder.set_limits(allocation).map_err(fail)?;
    let channels = usize::from(decoder.color_type().channel_count());
    let length = usize::try_from(decoder.total_bytes()).map_err(|error| damaged("WebP", &error))?;
    let mut samples = vec![0; length];
    decoder.read_image(&mut samples).map_err(fail)?;
    Ok(Pixels {
        size,
        channels,
        samples,
        orientation: blocks(bytes).orientation(),
    })
}

fn decoder(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, ServiceError> {
    // The decoder makes up what is missing at the end of a lossy file. The RIFF header says how much should be there.
    let declared = bytes.get(4..8).and_then(|length| length.try_into().ok());
    let declared = u64::from(declared.map_or(0, u32::from_le_bytes));
    if (bytes.len() as u64) < declared + 8 {
        return Err(undecodable("the WebP file is not whole: it ends in the middle"));
    }
    WebPDecoder::new(Cursor::new(bytes)).map_err(|error| damaged("WebP", &error))
}

/// The EXIF and XMP chunks, which count when the extended header says that they are there.
pub(super) fn blocks(bytes: &[u8]) -> Blocks {
    const EXIF_FLAG: u8 = 0x08;
    const XMP_FLAG: u8 = 0x04;
    let mut blocks = Blocks::default();
    let mut chunks = chunks(bytes);
    let Some((b"VP8X", header)) = chunks.next() else {
        return blocks;
    };
    let flags = header.first().copied().unwrap_or_default();
    for (name, body) in chunks {
        match name {
            b"EXIF" if flags & EXIF_FLAG != 0 => _ = blocks.exif.get_or_insert_with(|| body.to_vec()),
            b"XMP " if flags & XMP_FLAG != 0 => _ = blocks.xmp.get_or_insert_with(|| body.to_vec()),
            _ => {}
        }
    }
    blocks
}

/// Name and body of each whole chunk. RIFF: a length of 4 bytes, and bodies padded to even length.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(12..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_first_chunk::<4>()?;
        let (length, behind) = behind.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (body, behind) = behind.split_at_checked(length)?;
        rest = behind.get(length % 2..).unwrap_or_default();
        Some((name, body))
    })
}
