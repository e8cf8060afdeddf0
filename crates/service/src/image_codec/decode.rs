//! Bytes to RGB, as Pillow's `Image.open(…).convert("RGB")` after `ImageOps.exif_transpose`:
//! alpha is dropped and not blended, 16 bits become 8 by their high byte, palettes and grey are expanded, of an animation
//! the first frame counts, colour profiles are ignored.
//!
//! Two differences from Pillow: 16-bit grey keeps its high byte (Pillow clips it to white), and CMYK is always read as
//! Adobe's inverted form, which is what is found in the wild.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::jpeg::JpegDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};
use pentimento_types::{RgbImage, Size};

use super::jpeg_structure;
use crate::{InputLimits, ServiceError};

/// What a decoder may allocate beside the pixels.
const WORKING_BYTES: usize = 64 << 20;
/// A decoder's own words are repeated up to this length.
const LONGEST_DETAIL: usize = 160;

/// Reads a whole picture. Takes CPU time: call it on a blocking thread.
///
/// # Errors
/// The `Image…` variants of [`ServiceError`], whose texts are safe to show.
pub fn decode(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    let decoder = match container(bytes, limits)? {
        Container::Png => decode_png,
        Container::Jpeg => decode_jpeg,
        Container::Webp => decode_webp,
        Container::Other(what) => return Err(unknown_format(what)),
    };
    contain_panic(|| decoder(bytes, limits))
}

/// What an image of this file will take when it is decoded, in bytes; read from the header, with nothing allocated. The
/// pixels of the file may be wider than ours: 16 bits, or with alpha.
///
/// # Errors
/// As [`decode`], for all that the header shows.
pub fn decoded_bytes(bytes: &[u8], limits: InputLimits) -> Result<u64, ServiceError> {
    let header = match container(bytes, limits)? {
        Container::Png => png_header,
        Container::Jpeg => jpeg_header,
        Container::Webp => webp_header,
        Container::Other(what) => return Err(unknown_format(what)),
    };
    let size = contain_panic(|| header(bytes, limits))?;
    Ok(size.pixels() * 3)
}

/// The file's format, when it is not larger than the limit.
fn container(bytes: &[u8], limits: InputLimits) -> Result<Container, ServiceError> {
    let size_bytes = bytes.len() as u64;
    if bytes.is_empty() {
        return Err(ServiceError::ImageEmpty);
    }
    if size_bytes > limits.max_bytes {
        return Err(ServiceError::ImageTooLarge {
            bytes: size_bytes,
            limit: limits.max_bytes,
        });
    }
    Ok(Container::of(bytes))
}

fn unknown_format(what: &str) -> ServiceError {
    undecodable(format!("this is {what}; send a PNG, JPEG or WebP"))
}

/// A decoder that panics has met a file it cannot read; its text is in the log only.
fn contain_panic<T>(decoder: impl FnOnce() -> Result<T, ServiceError>) -> Result<T, ServiceError> {
    // The closure holds nothing but shared bytes, so nothing can be left half changed.
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|_| {
        tracing::error!("an image decoder panicked");
        Err(undecodable("the file is damaged".to_owned()))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Png,
    Jpeg,
    Webp,
    /// With its article, for a message.
    Other(&'static str),
}

impl Container {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let at = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Self::Png;
        }
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Self::Jpeg;
        }
        if at(0, 4) == b"RIFF" && at(8, 12) == b"WEBP" {
            return Self::Webp;
        }
        let head = at(0, bytes.len().min(256)).trim_ascii_start();
        Self::Other(if bytes.starts_with(b"GIF8") {
            "a GIF"
        } else if bytes.starts_with(b"BM") {
            "a BMP"
        } else if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
            "a TIFF"
        } else if bytes.starts_with(b"%PDF") {
            "a PDF"
        } else if at(4, 8) == b"ftyp" {
            "an AVIF, HEIC or video file"
        } else if head.starts_with(b"<") {
            "SVG, XML or HTML"
        } else if bytes.starts_with(&[0xff, 0x0a]) || at(4, 8) == b"JXL " {
            "a JPEG XL"
        } else {
            "not a picture format that is known here"
        })
    }
}

fn undecodable(detail: String) -> ServiceError {
    ServiceError::ImageUndecodable { detail }
}

/// The decoder's own text, short and on one line.
fn damaged(format: &str, error: &dyn std::fmt::Display) -> ServiceError {
    let text: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_DETAIL)
        .collect();
    undecodable(format!("the {format} file is damaged or not whole ({text})"))
}

fn check_size((width, height): (u32, u32), limits: InputLimits) -> Result<Size, ServiceError> {
    let size = Size { width, height };
    if width == 0 || height == 0 {
        return Err(undecodable("a picture needs at least one pixel".to_owned()));
    }
    if width > limits.max_side || height > limits.max_side {
        return Err(ServiceError::ImageTooManyPixels {
            size,
            max_side: limits.max_side,
        });
    }
    Ok(size)
}

fn png_decoder(bytes: &[u8]) -> png::Decoder<Cursor<&[u8]>> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: WORKING_BYTES });
    // Texts and profiles are where decompression bombs hide, and nothing here reads them.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

fn png_header(bytes: &[u8], limits: InputLimits) -> Result<Size, ServiceError> {
    let mut decoder = png_decoder(bytes);
    let header = decoder
        .read_header_info()
        .map_err(|error| damaged("PNG", &error))?;
    check_size((header.width, header.height), limits)
}

fn decode_png(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    let fail = |error: png::DecodingError| damaged("PNG", &error);
    let mut decoder = png_decoder(bytes);
    let header = decoder.read_header_info().map_err(fail)?;
    let size = check_size((header.width, header.height), limits)?;
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(fail)?;
    let length = reader
        .output_buffer_size()
        .ok_or_else(|| undecodable("the PNG file is damaged".to_owned()))?;
    let mut pixels = vec![0; length];
    let frame = reader.next_frame(&mut pixels).map_err(fail)?;
    if (frame.width, frame.height) != (size.width, size.height) {
        return Err(undecodable(
            "the first frame of the PNG does not fill it".to_owned(),
        ));
    }
    pixels.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    let orientation = reader.info().exif_metadata.as_deref();
    let orientation = orientation.and_then(Orientation::from_exif_chunk);
    to_picture(pixels, channels, size, orientation)
}

fn jpeg_decoder(bytes: &[u8]) -> Result<JpegDecoder<Cursor<&[u8]>>, ServiceError> {
    jpeg_structure::check(bytes).map_err(|problem| undecodable(problem.to_owned()))?;
    JpegDecoder::new(Cursor::new(bytes)).map_err(|error| damaged("JPEG", &error))
}

fn jpeg_header(bytes: &[u8], limits: InputLimits) -> Result<Size, ServiceError> {
    check_size(jpeg_decoder(bytes)?.dimensions(), limits)
}

fn decode_jpeg(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_with(jpeg_decoder(bytes)?, "JPEG", limits)
}

fn webp_decoder(bytes: &[u8]) -> Result<WebPDecoder<Cursor<&[u8]>>, ServiceError> {
    // The decoder makes up what is missing at the end of a lossy file. The RIFF header says how much should be there.
    let declared = bytes.get(4..8).and_then(|length| length.try_into().ok());
    let declared = u64::from(declared.map_or(0, u32::from_le_bytes));
    if (bytes.len() as u64) < declared + 8 {
        return Err(undecodable(
            "the WebP file is not whole: it ends in the middle".to_owned(),
        ));
    }
    WebPDecoder::new(Cursor::new(bytes)).map_err(|error| damaged("WebP", &error))
}

fn webp_header(bytes: &[u8], limits: InputLimits) -> Result<Size, ServiceError> {
    check_size(webp_decoder(bytes)?.dimensions(), limits)
}

fn decode_webp(bytes: &[u8], limits: InputLimits) -> Result<RgbImage, ServiceError> {
    decode_with(webp_decoder(bytes)?, "WebP", limits)
}

/// For the decoders that have read the header when they are made, and allocate pixels when they are told to.
fn decode_with(
    mut decoder: impl ImageDecoder,
    format: &str,
    limits: InputLimits,
) -> Result<RgbImage, ServiceError> {
    let fail = |error: image::ImageError| damaged(format, &error);
    let size = check_size(decoder.dimensions(), limits)?;
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(decoder.total_bytes().saturating_mul(4) + WORKING_BYTES as u64);
    decoder.set_limits(allocation).map_err(fail)?;
    // A broken EXIF block does not make the pixels worse.
    let orientation = decoder.orientation().ok();
    let colour = decoder.color_type();
    if colour.bytes_per_pixel() != colour.channel_count() {
        return Err(undecodable(format!(
            "the {format} file has more than 8 bits per channel"
        )));
    }
    let channels = usize::from(colour.channel_count());
    let length = usize::try_from(decoder.total_bytes()).map_err(|error| damaged(format, &error))?;
    let mut pixels = vec![0; length];
    decoder.read_image(&mut pixels).map_err(fail)?;
    to_picture(pixels, channels, size, orientation)
}

/// From 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha) bytes per pixel, turned the right way up.
fn to_picture(
    pixels: Vec<u8>,
    channels: usize,
    size: Size,
    orientation: Option<Orientation>,
) -> Result<RgbImage, ServiceError> {
    let rgb: Vec<u8> = match channels {
        1 | 2 => pixels
            .chunks_exact(channels)
            .flat_map(|pixel| [pixel[0]; 3])
            .collect(),
        4 => {
            let (whole, _) = pixels.as_chunks::<4>();
            whole.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect()
        }
        _ => pixels,
    };
    let damaged = || undecodable("the file does not hold as many pixels as it says".to_owned());
    let rgb = image::RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(damaged)?;
    let mut picture = DynamicImage::ImageRgb8(rgb);
    picture.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    let rgb = picture.into_rgb8();
    let size = Size {
        width: rgb.width(),
        height: rgb.height(),
    };
    RgbImage::new(size, rgb.into_raw()).ok_or_else(damaged)
}

#[cfg(test)]
mod tests;
