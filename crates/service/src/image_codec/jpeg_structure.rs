//! Walks the markers of a JPEG file without decoding it.
//!
//! The decoder must not be the one to find that a file ends in the middle: a caller who sent half a picture is told so
//! plainly. The walk also bounds the number of scans, whose decoding time a small file could otherwise multiply.

use super::orientation::Blocks;

/// Photos have about ten scans; more than this many is a bomb.
const MOST_SCANS: usize = 100;

const TRUNCATED: &str = "the JPEG file is not whole: it ends in the middle";

/// What a segment with an XMP packet begins with (XMP specification part 3, 1.1.3).
pub(super) const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// What the markers say.
#[derive(Default)]
pub(super) struct Structure {
    /// Width and height.
    pub(super) size: (u32, u32),
    /// The identifiers of the components: 1, 3 or 4 of them.
    pub(super) components: Vec<u8>,
    /// Whether the decoder has to keep the coefficients of all blocks until the last scan.
    pub(super) keeps_coefficients: bool,
    pub(super) is_jfif: bool,
    /// The transform flag of Adobe's marker.
    pub(super) adobe_transform: Option<u8>,
    /// From before the first scan, as Pillow takes them.
    pub(super) blocks: Blocks,
}

/// Reads the markers. Refuses a file whose last scan does not end with the end-of-image marker (as Pillow does), one with
/// too many scans, and kinds of JPEG that are not decoded.
pub(super) fn read(bytes: &[u8]) -> Result<Structure, &'static str> {
    let mut structure = Structure::default();
    let mut scans = 0;
    // Behind the start-of-image marker.
    let mut at = 2;
    loop {
        let marker = next_marker(bytes, &mut at).ok_or(TRUNCATED)?;
        match marker {
            // End of image.
            0xd9 => {
                return if scans > 0 {
                    Ok(structure)
                } else {
                    Err("the JPEG file holds no picture")
                };
            }
            // Markers without a length: restarts, start of image, and the one for arithmetic coding.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = bytes.get(at..at + 2).ok_or(TRUNCATED)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                let body = bytes.get(at + 2..at + length).ok_or(TRUNCATED)?;
                at += length;
                if marker == 0xda {
                    scans += 1;
                    if scans > MOST_SCANS {
                        return Err("the JPEG file has too many scans");
                    }
                    if structure.components.is_empty() {
                        return Err("the JPEG file has a scan before its header");
                    }
                } else if scans == 0 {
                    structure.take(marker, body)?;
                }
            }
        }
    }
}

impl Structure {
    /// Takes over what a marker before the first scan says.
    fn take(&mut self, marker: u8, body: &[u8]) -> Result<(), &'static str> {
        match marker {
            0xc0..=0xc2 => {
                self.take_frame(body)?;
                self.keeps_coefficients = marker == 0xc2;
            }
            // These four are tables and a reserved marker.
            0xc4 | 0xc8 | 0xcc => {}
            0xc3..=0xcf => return Err("lossless, hierarchical and arithmetic JPEG files are not read here"),
            0xe0 if body.len() >= 14 && body.starts_with(b"JFIF\0") => self.is_jfif = true,
            0xe1 => self.take_metadata(body),
            0xee if body.starts_with(b"Adobe") => {
                self.adobe_transform = body.get(11).copied().or(self.adobe_transform);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_frame(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let Some(([precision, height_high, height_low, width_high, width_low, count], components)) =
            body.split_first_chunk()
        else {
            return Err("the JPEG file is damaged: its header is too short");
        };
        if *precision != 8 {
            return Err("the JPEG file has more than 8 bits per channel");
        }
        if !self.components.is_empty() {
            return Err("the JPEG file has two headers");
        }
        let (components, _) = components.as_chunks::<3>();
        if !matches!(count, 1 | 3 | 4) || components.len() != usize::from(*count) {
            return Err("the JPEG file is neither grey nor of three or four colours");
        }
        let number = |high: &u8, low: &u8| u32::from(u16::from_be_bytes([*high, *low]));
        self.size = (number(width_high, width_low), number(height_high, height_low));
        self.components = components.iter().map(|[identifier, ..]| *identifier).collect();
        Ok(())
    }

    fn take_metadata(&mut self, body: &[u8]) {
        if let Some(block) = body.strip_prefix(b"Exif\0\0") {
            // A long block goes on in the next marker.
            self.blocks.exif.get_or_insert_default().extend(block);
        } else if let Some(packet) = body.strip_prefix(XMP) {
            self.blocks.xmp = Some(packet.to_vec());
        }
    }
}

/// Skips coded data and padding to the next marker, and returns its code. In coded data `ff 00` stands for a byte `ff`.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let ahead = bytes.get(*at..)?;
        *at += ahead.iter().position(|byte| *byte == 0xff)? + 1;
        match *bytes.get(*at)? {
            0xff => {}
            0x00 => *at += 1,
            code => {
                *at += 1;
                return Some(code);
            }
        }
    }
}
