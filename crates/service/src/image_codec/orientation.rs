//! How an image is turned upright, from what its file says: what Pillow's `ImageOps.exif_transpose` turns is turned.
//!
//! The EXIF block says it (TIFF 6.0, tag 274). Where that says nothing, `tiff:Orientation` in the XMP packet does. Blocks
//! are read without trust: a broken one turns nothing, because it does not make the pixels worse.

use image::metadata::Orientation;

const TAG: u16 = 0x0112;

/// The parts of a file that may say how it is turned, as they were found.
#[derive(Default)]
pub(super) struct Blocks {
    /// TIFF, with or without `Exif\0\0` in front.
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
}

impl Blocks {
    pub(super) fn orientation(&self) -> Orientation {
        let exif = self.exif.as_deref().and_then(in_exif);
        // Whatever EXIF says settles it, nonsense too.
        let value = exif.or_else(|| self.xmp.as_deref().and_then(in_xmp));
        value
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms)
    }
}

/// The value of the tag; 0, which turns nothing, when it has one that is no small number.
fn in_exif(block: &[u8]) -> Option<u8> {
    let mut block = block;
    // Pillow takes two of them off.
    for _ in 0..2 {
        block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    }
    let is_big_endian = match block.get(..4)? {
        // Both orders of the second half are in use, and 43 for 42.
        b"MM\0*" | b"MM*\0" | b"MM\0+" => true,
        b"II*\0" | b"II\0*" => false,
        _ => return None,
    };
    let tiff = Tiff { block, is_big_endian };
    let directory = usize::try_from(tiff.u32(tiff.bytes(4)?)).ok()?;
    let entries = tiff.u16(tiff.bytes(directory)?);
    (0..usize::from(entries))
        .map_while(|index| tiff.bytes::<12>(directory.checked_add(2 + index * 12)?))
        .find_map(|entry| tiff.orientation(&entry))
}

/// The first `tiff:Orientation="6"` or `tiff:Orientation>6`.
fn in_xmp(packet: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    (0..packet.len()).find_map(|at| {
        let value = packet[at..].strip_prefix(NAME)?;
        let digit = value.strip_prefix(b"=\"").or_else(|| value.strip_prefix(b">"))?;
        let digit = digit.first().filter(|digit| digit.is_ascii_digit())?;
        Some(digit - b'0')
    })
}

struct Tiff<'a> {
    block: &'a [u8],
    is_big_endian: bool,
}

impl Tiff<'_> {
    /// The value of a directory's entry, when it is the one that is looked for and has a value. Of several values the first
    /// counts.
    fn orientation(&self, entry: &[u8; 12]) -> Option<u8> {
        let [tag, tag_low, kind, kind_low, count @ .., a, b, c, d] = *entry;
        if self.u16([tag, tag_low]) != TAG {
            return None;
        }
        let kind = self.u16([kind, kind_low]);
        let unit_bytes: u32 = match kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16 => 8,
            _ => return None,
        };
        let size_bytes = self
            .u32(count)
            .checked_mul(unit_bytes)
            .filter(|bytes| *bytes > 0)?;
        let mut value = [a, b, c, d, 0, 0, 0, 0];
        if size_bytes > 4 {
            let at = usize::try_from(self.u32([a, b, c, d])).ok()?;
            let values = self.block.get(at..)?.get(..usize::try_from(size_bytes).ok()?)?;
            let first = values.get(..8).unwrap_or(values);
            value[..first.len()].copy_from_slice(first);
        }
        let [a, b, c, d, second @ ..] = value;
        let value = match kind {
            3 | 8 => u32::from(self.u16([a, b])),
            4 | 9 | 13 => self.u32([a, b, c, d]),
            6 => u32::from(a),
            5 | 10 => self.quotient([a, b, c, d], second),
            // Texts and bytes are no numbers to Pillow either, and nobody writes the others.
            _ => 0,
        };
        Some(u8::try_from(value).unwrap_or(0))
    }

    /// 0 when it is no whole number.
    fn quotient(&self, numerator: [u8; 4], denominator: [u8; 4]) -> u32 {
        let (numerator, denominator) = (self.u32(numerator), self.u32(denominator));
        if numerator.checked_rem(denominator) == Some(0) {
            numerator / denominator
        } else {
            0
        }
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.block.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.is_big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}
