//! JPEG files: what their markers say, and their pixels.
//!
//! `jpeg-decoder` reads all sequential and progressive layouts; its portable code is used, so that all machines read the
//! same pixels. What the components are is decided here, by libjpeg's rules, since the decoder has others.

use std::io::Cursor;

use jpeg_decoder::{ColorTransform, Decoder};

use super::decoding::Decoding;
use super::jpeg_structure::{self, Structure};
use super::pixels::Pixels;
use super::refusal::{check_size, damaged, undecodable};
use crate::{InputLimits, ServiceError};

pub(super) fn look_at(bytes: &[u8], limits: InputLimits) -> Result<Decoding, ServiceError> {
    let structure = structure(bytes)?;
    let size = check_size(structure.size, limits)?;
    let components = structure.components.len() as u64;
    // A plane and the samples of each component; where a component comes in several scans, its 16-bit coefficients stay
    // until the last one. Then RGB beside the samples, and the same turned upright.
    let coefficients = if structure.keeps_coefficients { 2 } else { 0 };
    let working = components * (1 + 1 + coefficients) + 3;
    Ok(Decoding {
        size,
        working_bytes: size.pixels() * working,
    })
}

pub(super) fn decode(bytes: &[u8], limits: InputLimits) -> Result<Pixels, ServiceError> {
    let structure = structure(bytes)?;
    let size = check_size(structure.size, limits)?;
    let mut decoder = Decoder::new(Cursor::new(bytes));
    match structure.components.len() {
        3 => decoder.set_color_transform(of_three(&structure)),
        4 => decoder.set_color_transform(of_four(&structure)),
        _ => {}
    }
    let samples = decoder.decode().map_err(|error| damaged("JPEG", &error))?;
    let (channels, samples) = match structure.components.len() {
        1 => (1, samples),
        3 => (3, samples),
        _ => (3, from_ink(&samples)),
    };
    Ok(Pixels {
        size,
        channels,
        samples,
        orientation: structure.blocks.orientation(),
    })
}

fn structure(bytes: &[u8]) -> Result<Structure, ServiceError> {
    jpeg_structure::read(bytes).map_err(undecodable)
}

/// libjpeg's `default_decompress_parms` (jdapimin.c): JFIF is always YCbCr, then Adobe's marker counts, then the names of
/// the components.
fn of_three(structure: &Structure) -> ColorTransform {
    let is_rgb = !structure.is_jfif
        && match structure.adobe_transform {
            Some(transform) => transform == 0,
            None => structure.components == *b"RGB",
        };
    if is_rgb {
        ColorTransform::RGB
    } else {
        ColorTransform::YCbCr
    }
}

/// The same for four components.
fn of_four(structure: &Structure) -> ColorTransform {
    match structure.adobe_transform {
        None | Some(0) => ColorTransform::CMYK,
        Some(_) => ColorTransform::YCCK,
    }
}

/// Pillow's `cmyk2rgb` (Convert.c). All files hold their ink inverted, as Adobe does, marker or not; the decoder has turned
/// it back.
fn from_ink(cmyk: &[u8]) -> Vec<u8> {
    let (pixels, _) = cmyk.as_chunks::<4>();
    let rgb = |[c, m, y, k]: &[u8; 4]| {
        let paper = 255 - u32::from(*k);
        [c, m, y].map(|ink| {
            // Divided by 255, rounded.
            let product = u32::from(*ink) * paper + 128;
            let covered = ((product >> 8) + product) >> 8;
            u8::try_from(paper.saturating_sub(covered)).unwrap_or(u8::MAX)
        })
    };
    pixels.iter().flat_map(rgb).collect()
}
