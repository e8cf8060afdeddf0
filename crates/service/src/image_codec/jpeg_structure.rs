//! Walks the markers of a JPEG file without decoding it.
//!
//! The decoder fills what is missing at the end of a file with grey and goes on; a caller who sent half a picture must be
//! told instead. It also bounds the number of scans, whose decoding time a small file could otherwise multiply.

/// Photos have about ten scans; more than this many is a bomb.
const MOST_SCANS: usize = 100;

const TRUNCATED: &str = "the JPEG file is not whole: it ends in the middle";

/// Refuses a file whose last scan does not end with the end-of-image marker (as Pillow does), and one with too many scans.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut scans = 0;
    // Behind the start-of-image marker.
    let mut at = 2;
    loop {
        let marker = next_marker(bytes, &mut at).ok_or(TRUNCATED)?;
        match marker {
            // End of image.
            0xd9 => {
                return if scans > 0 {
                    Ok(())
                } else {
                    Err("the JPEG file holds no picture")
                };
            }
            // Markers without a length: restarts, start of image, and the one for arithmetic coding.
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = bytes.get(at..at + 2).ok_or(TRUNCATED)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if marker == 0xda {
                    scans += 1;
                    if scans > MOST_SCANS {
                        return Err("the JPEG file has too many scans");
                    }
                }
            }
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
