//! What a server says that it has done to a body, although it was asked to leave it alone.
//!
//! `Content-Encoding` of object stores is whatever was uploaded with the file, so only names of real compressions count.
//! These are unpacked within the same bound as the body itself.

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use crate::OutboundError;

/// One after the other; nobody compresses a picture more often than that.
const MOST_CODINGS: usize = 2;
/// RFC 8878 asks for no more from a reader; the library would take 128 MiB for a file that asks for it.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A compression that is unpacked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// The compressions of a body, in the order in which they were applied. `aws-chunked`, `UTF-8`, `base64`, `identity` and
/// nothing at all are none: the body is the file.
pub(crate) fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, OutboundError> {
    let lines = headers.get_all(CONTENT_ENCODING);
    let lines = lines.iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let mut found = Vec::new();
    for line in lines {
        for name in line.split(',') {
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => found.push(Coding::Gzip),
                "deflate" => found.push(Coding::Deflate),
                "zstd" => found.push(Coding::Zstd),
                "br" => return Err(OutboundError::Compressed { coding: "br" }),
                "compress" | "x-compress" => {
                    return Err(OutboundError::Compressed { coding: "compress" });
                }
                _ => {}
            }
        }
    }
    if found.len() > MOST_CODINGS {
        return Err(OutboundError::Compressed {
            coding: "several compressions",
        });
    }
    Ok(found)
}

/// Undoes the compressions; no stage may become larger than `limit_bytes`. Takes the processor for a while: call it on a
/// blocking thread.
pub(crate) fn unpack(mut body: Bytes, codings: &[Coding], limit_bytes: u64) -> Result<Bytes, OutboundError> {
    for coding in codings.iter().rev() {
        body = unpack_one(&body, *coding, limit_bytes)?;
    }
    Ok(body)
}

fn unpack_one(body: &[u8], coding: Coding, limit_bytes: u64) -> Result<Bytes, OutboundError> {
    let broken = |source| OutboundError::NotUnpacked {
        coding: coding.name(),
        source,
    };
    let reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(MultiGzDecoder::new(body)),
        // With zlib's header by the standard, and without it by some servers.
        Coding::Deflate if is_zlib(body) => Box::new(ZlibDecoder::new(body)),
        Coding::Deflate => Box::new(DeflateDecoder::new(body)),
        Coding::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(body).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut unpacked = Vec::new();
    reader
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut unpacked)
        .map_err(broken)?;
    if unpacked.len() as u64 > limit_bytes {
        return Err(OutboundError::TooLarge { limit_bytes });
    }
    Ok(unpacked.into())
}

/// RFC 1950: the method is 8, and the first two bytes are a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..]
        if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}
