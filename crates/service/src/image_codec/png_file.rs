//! PNG files: which chunks they have, and their pixels.

use std::io::{Cursor, Read as _};

use super::decoding::Decoding;
use super::orientation::Blocks;
use super::pixels::Pixels;
use super::refusal::{check_size, damaged, undecodable};
use crate::{InputLimits, ServiceError};
use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

/// What the decoder may allocate beside the pixels.
const WORKING_BYTES: usize = 64 << 20;
/// The keyword of a text with an XMP packet (XMP specification part 3, 1.1.5).
pub(super) const XMP: &str = "XML:com.adobe.xmp";
const EXIF: &[u8] = b"exif";
const PROFILE: &[u8] = b"Raw profile type exif";
/// A compressed text is read up to this length, as in Pillow.
const LONGEST_TEXT: u64 = 1 << 20;

pub(super) fn look_at(bytes: &[u8], limits: InputLimits) -> Result<Decoding, ServiceError> {
    let mut decoder = decoder(bytes);
    let header = decoder
        .read_header_info()
        .map_err(|error| damaged("PNG", &error))?;
    let size = check_size((header.width, header.height), limits)?;
    let is_plain =
        header.color_type == png::ColorType::Rgb && !chunks(bytes).any(|(kind, _)| kind == b"tRNS");
    // RGB as it is stored, or up to four samples and RGB beside them; and the same turned upright.
    let working_bytes_of_a_pixel = if is_plain { 3 + 3 } else { 4 + 3 + 3 };
    Ok(Decoding {
        size,
        working_bytes: size.pixels() * working_bytes_of_a_pixel,
    })
}

pub(super) fn decode(bytes: &[u8], limits: InputLimits) -> Result<Pixels, ServiceError> {
    let fail = |error: png::DecodingError| damaged("PNG", &error);
    let mut decoder = decoder(bytes);
    let header = decoder.read_header_info().map_err(fail)?;
    let size = check_size((header.width, header.height), limits)?;
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(fail)?;
    let length = reader
        .output_buffer_size()
        .ok_or_else(|| undecodable("the PNG file is damaged"))?;
    let mut samples = vec![0; length];
    let frame = reader.next_frame(&mut samples).map_err(fail)?;
    if (frame.width, frame.height) != (size.width, size.height) {
        return Err(undecodable("the first frame of the PNG does not fill it"));
    }
    samples.truncate(frame.buffer_size());
    Ok(Pixels {
        size,
        channels: frame.color_type.samples(),
        samples,
        orientation: orientation(bytes),
    })
}

fn decoder(bytes: &[u8]) -> png::Decoder<Cursor<&[u8]>> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: WORKING_BYTES });
    // Texts and profiles are where decompression bombs hide; the few texts that count are read below.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

/// An `eXIf` chunk wherever it stands, a text `exif` with a raw block, or ImageMagick's `Raw profile type exif` in
/// hexadecimal; of several of a kind the last one, as in Pillow. The text of XMP is `XML:com.adobe.xmp`.
fn orientation(bytes: &[u8]) -> Orientation {
    let (mut blocks, mut profile) = (Blocks::default(), None);
    for (kind, body) in chunks(bytes) {
        if kind == b"eXIf" {
            blocks.exif = Some(body.to_vec());
        }
        let Some((keyword, text)) = text_of(kind, body, &[EXIF, PROFILE, XMP.as_bytes()]) else {
            continue;
        };
        match keyword {
            EXIF if kind == b"tEXt" => blocks.exif = Some(text),
            PROFILE => profile = Some(text),
            keyword if keyword == XMP.as_bytes() => blocks.xmp = Some(text),
            _ => {}
        }
    }
    blocks.exif = blocks.exif.or_else(|| from_hexadecimal(&profile?));
    blocks.orientation()
}

/// Kind and body of each whole chunk up to the end mark, or up to the second frame of an animation.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    let mut has_pixels = false;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (kind, behind) = behind.split_first_chunk::<4>()?;
        let (body, behind) = behind.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        rest = behind.get(4..)?;
        has_pixels |= kind == b"IDAT";
        let is_last = kind == b"IEND" || (kind == b"fcTL" && has_pixels);
        (!is_last).then_some((kind, body))
    })
}

/// The first text under this keyword, wherever it stands: other programs write behind the pixels too.
pub(super) fn text(bytes: &[u8], keyword: &str) -> Option<Vec<u8>> {
    let wanted = [keyword.as_bytes()];
    let found = |(kind, body): (&[u8; 4], _)| text_of(kind, body, &wanted);
    chunks(bytes).find_map(found).map(|(_, text)| text)
}

/// Keyword and text of the wanted keywords, of which nothing else is decompressed.
fn text_of<'a>(kind: &[u8; 4], body: &'a [u8], wanted: &[&[u8]]) -> Option<(&'a [u8], Vec<u8>)> {
    let (keyword, body) = split_at_zero(body)?;
    if !wanted.contains(&keyword) {
        return None;
    }
    let text = match kind {
        b"tEXt" => body.to_vec(),
        b"zTXt" => decompressed(body.strip_prefix(&[0])?)?,
        b"iTXt" => {
            let (is_compressed, body) = body.split_first()?;
            let (method, body) = body.split_first()?;
            let (_language, body) = split_at_zero(body)?;
            let (_translated, body) = split_at_zero(body)?;
            match (is_compressed, method) {
                (0, _) => body.to_vec(),
                (_, 0) => decompressed(body)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some((keyword, text))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let zero = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..zero], &bytes[zero + 1..]))
}

fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut whole = ZlibDecoder::new(bytes).take(LONGEST_TEXT + 1);
    let length = whole.read_to_end(&mut text).ok()?;
    (length as u64 <= LONGEST_TEXT).then_some(text)
}

/// Behind three lines: an empty one, the name, and the length.
fn from_hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let mut lines = text.splitn(4, |byte| *byte == b'\n');
    let digits = lines.nth(3)?.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Vec<u8> = digits
        .map(|byte| {
            char::from(*byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    odd.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
