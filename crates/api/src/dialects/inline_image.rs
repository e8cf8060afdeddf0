//! An image file inside a JSON string: base64 in every spelling that real clients send.
//!
//! Taken: a `data:…;base64,` prefix, white space and line breaks, the URL-safe alphabet, missing padding.
//! Not taken: addresses. Only the size is checked here; the bytes are decoded further inside.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::lenient::{FieldError, FieldErrorReason};

/// Padding is cut before decoding. Bits left over in the last character are ignored, as Python and Go do.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of the file in `text`.
pub(crate) fn decode(field: &str, text: String, limit_bytes: usize) -> Result<Bytes, FieldError> {
    let refuse = |reason, message: String| FieldError {
        field: field.to_owned(),
        message: format!("{field} {message}"),
        reason,
    };
    let unreadable = |message: &str| refuse(FieldErrorReason::Image, message.to_owned());
    let start = payload_start(&text).map_err(unreadable)?;
    let mut digits = text.into_bytes();
    digits.drain(..start);
    digits.retain(|byte| !byte.is_ascii_whitespace());
    for byte in &mut digits {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    while digits.last() == Some(&b'=') {
        digits.pop();
    }
    if digits.is_empty() {
        return Err(unreadable("is empty; send the file's bytes in base64"));
    }
    within_limit(field, digits.len() * 3 / 4, limit_bytes)?;
    match ENGINE.decode(&digits) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => {
            let detail = base64_fault(&error);
            Err(refuse(
                FieldErrorReason::Image,
                format!("is not base64: {detail}"),
            ))
        }
    }
}

/// Refuses a file of more bytes than the limit.
pub(crate) fn within_limit(field: &str, found: usize, limit_bytes: usize) -> Result<(), FieldError> {
    if found <= limit_bytes {
        return Ok(());
    }
    let limit = limit_bytes / (1024 * 1024);
    Err(FieldError {
        field: field.to_owned(),
        message: format!("{field} is a file of {found} bytes, the limit is {limit} MiB; send a smaller one"),
        reason: FieldErrorReason::ImageBytes,
    })
}

/// Where the base64 digits begin.
fn payload_start(text: &str) -> Result<usize, &'static str> {
    let lead = text.len() - text.trim_start().len();
    let head: String = text[lead..]
        .chars()
        .take(8)
        .collect::<String>()
        .to_ascii_lowercase();
    if head.starts_with("http://") || head.starts_with("https://") {
        return Err("is an address; this call does not fetch pictures, send the file's bytes in base64");
    }
    if !head.starts_with("data:") {
        return Ok(lead);
    }
    // The header of a data URI is short; a comma far inside is none.
    let comma = text.bytes().skip(lead).take(256).position(|byte| byte == b',');
    let comma = lead + comma.ok_or("begins with data: but has no comma after its media type")?;
    let is_base64 = text[lead..comma]
        .to_ascii_lowercase()
        .trim_end()
        .ends_with(";base64");
    is_base64
        .then_some(comma + 1)
        .ok_or("is a data URI that is not base64; send data:image/png;base64,…")
}

fn base64_fault(error: &base64::DecodeError) -> String {
    match error {
        base64::DecodeError::InvalidByte(at, byte) => {
            format!("character {:?} at digit {at}", char::from(*byte))
        }
        base64::DecodeError::InvalidLength(digits) => format!("{digits} digits cannot be a whole file"),
        base64::DecodeError::InvalidLastSymbol { .. } | base64::DecodeError::InvalidPadding => {
            "it ends in the middle of a byte".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_text(text: &str) -> Result<Bytes, FieldError> {
        decode("input_image", text.to_owned(), 100)
    }

    #[test]
    fn every_spelling_gives_the_same_bytes() {
        let bytes = [0xFB, 0xEF, 0xBE, 0xFF, 0x00];
        for text in [
            "++++/wA=",
            "++++/wA",
            "----_wA",
            "----_wA=",
            " ++++\r\n/wA=\n",
            "data:image/png;base64,++++/wA=",
            "DATA:image/jpeg;name=a.jpg;BASE64, ++++/wA=",
            "data:;base64,++++/wA",
        ] {
            assert_eq!(decode_text(text).unwrap(), bytes.as_slice(), "{text}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_a_way_out() {
        for (text, part) in [
            ("", "is empty"),
            ("  ", "is empty"),
            ("====", "is empty"),
            ("data:image/png;base64,", "is empty"),
            ("https://example.com/a.png", "is an address"),
            ("data:image/png,abc", "not base64"),
            ("data:image/png", "no comma"),
            ("not base64!", "is not base64"),
            ("AAAAA", "is not base64"),
            ("é", "is not base64"),
            ("AA=A", "is not base64"),
        ] {
            let refusal = decode_text(text).unwrap_err();
            assert_eq!(refusal.reason, FieldErrorReason::Image, "{text}");
            assert!(
                refusal.message.starts_with("input_image ") && refusal.message.contains(part),
                "{refusal}"
            );
        }
    }

    #[test]
    fn the_limit_is_on_the_decoded_bytes() {
        assert_eq!(decode_text(&"A".repeat(132)).unwrap().len(), 99);
        let refusal = decode_text(&"A".repeat(136)).unwrap_err();
        assert_eq!(refusal.reason, FieldErrorReason::ImageBytes);
    }
}
