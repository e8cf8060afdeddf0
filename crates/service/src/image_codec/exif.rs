//! The two EXIF fields that carry an image's parameters: UserComment for people's tools (as A1111 writes it) and
//! MakerNote for our own reading back.
//!
//! TIFF 6.0, big-endian, and EXIF 2.3: one directory that points to a second one with the two fields.

const EXIF_POINTER: u16 = 0x8769;
const MAKER_NOTE: u16 = 0x927c;
const USER_COMMENT: u16 = 0x9286;
const TYPE_LONG: u16 = 4;
const TYPE_UNDEFINED: u16 = 7;
/// What our MakerNote begins with.
const MAKER: &[u8] = b"Pentimento\0";
/// A JPEG segment holds 65,533 bytes.
const MOST_BYTES: usize = 60_000;

/// The EXIF block without the `Exif\0\0` of JPEG. Leaves the comment, then both out when they are too long for a JPEG.
pub(super) fn write(comment: &str, json: &str) -> Option<Vec<u8>> {
    let mut user_comment = b"UNICODE\0".to_vec();
    user_comment.extend(comment.encode_utf16().flat_map(u16::to_be_bytes));
    let maker_note = [MAKER, json.as_bytes()].concat();
    if maker_note.len() > MOST_BYTES {
        return None;
    }
    if maker_note.len() + user_comment.len() > MOST_BYTES {
        return Some(block(&[(MAKER_NOTE, maker_note)]));
    }
    Some(block(&[(MAKER_NOTE, maker_note), (USER_COMMENT, user_comment)]))
}

/// The JSON that [`write()`] put into a block; None for any other block.
pub(super) fn read(exif: &[u8]) -> Option<&str> {
    // Some readers leave the prefix on.
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let tiff = Tiff(tiff.starts_with(b"MM\0*").then_some(tiff)?);
    let first = tiff.u32_at(4)?;
    let second = tiff.field(first, EXIF_POINTER)?.value;
    let note = tiff.field(second, MAKER_NOTE)?;
    let from = usize::try_from(note.value).ok()?;
    let to = from.checked_add(usize::try_from(note.count).ok()?)?;
    let json = tiff.0.get(from..to)?.strip_prefix(MAKER)?;
    std::str::from_utf8(json).ok()
}

/// `fields` are in ascending order of their tags and longer than four bytes, so their values stand behind the directory.
fn block(fields: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let mut bytes = Vec::with_capacity(12);
        bytes.extend(tag.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(count.to_be_bytes());
        bytes.extend(value.to_be_bytes());
        bytes
    };
    // Header, then a directory of one entry: count, entry, offset of the next directory.
    let second = 8 + 2 + 12 + 4;
    let mut values_at = second + 2 + 12 * fields.len() + 4;
    let mut out = b"MM\0*".to_vec();
    out.extend(8_u32.to_be_bytes());
    out.extend(1_u16.to_be_bytes());
    out.extend(entry(EXIF_POINTER, TYPE_LONG, 1, number(second)));
    out.extend([0; 4]);
    out.extend(u16::try_from(fields.len()).unwrap_or(0).to_be_bytes());
    for (tag, value) in fields {
        out.extend(entry(
            *tag,
            TYPE_UNDEFINED,
            number(value.len()),
            number(values_at),
        ));
        // Values begin at even offsets.
        values_at += value.len().next_multiple_of(2);
    }
    out.extend([0; 4]);
    for (_, value) in fields {
        out.extend(value);
        out.extend(vec![0; value.len() % 2]);
    }
    out
}

/// A big-endian TIFF block, read without trust.
struct Tiff<'a>(&'a [u8]);

struct Field {
    count: u32,
    value: u32,
}

impl Tiff<'_> {
    fn u16_at(&self, at: u32) -> Option<u16> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.0.get(at..at.checked_add(2)?)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn u32_at(&self, at: u32) -> Option<u32> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }

    fn field(&self, directory: u32, tag: u16) -> Option<Field> {
        let entries = u32::from(self.u16_at(directory)?);
        (0..entries).find_map(|index| {
            let at = directory.checked_add(2 + index * 12)?;
            if self.u16_at(at)? != tag {
                return None;
            }
            Some(Field {
                count: self.u32_at(at.checked_add(4)?)?,
                value: self.u32_at(at.checked_add(8)?)?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for json in ["{}", "{\"prompt\":\"ein rotes Häuschen 🏠\"}"] {
            for comment in ["", "a red house\nSteps: 4", "häuschen 🏠"] {
                assert_eq!(read(&write(comment, json).unwrap()), Some(json));
            }
        }
    }

    #[test]
    fn what_is_too_long_for_a_jpeg_is_left_out() {
        let long = "x".repeat(40_000);
        assert_eq!(read(&write(&long, "{}").unwrap()), Some("{}"));
        assert!(write("", &"x".repeat(70_000)).is_none());
    }

    #[test]
    fn damaged_blocks_are_read_without_trust() {
        let good = write("a red house", "{}").unwrap();
        for length in 0..good.len() {
            let _ = read(&good[..length]);
        }
        for at in 0..good.len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read(&bad);
            }
        }
    }
}
