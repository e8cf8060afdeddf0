//! The doors for `fuzz/`, which are there when it builds this crate, and in tests, which run its corpus.

use crate::{InputLimits, image_codec};

const LIMITS: InputLimits = InputLimits {
    max_side: 256,
    max_pixels: 256 * 256,
    max_bytes: 1 << 20,
};

/// A file that a caller sends as an image: read as an image and as a mask, or refused.
///
/// # Panics
/// When something that must hold for every file does not.
pub fn image_file(bytes: &[u8]) {
    let promised = image_codec::look_at(bytes, LIMITS);
    if let Ok(image) = image_codec::decode(bytes, LIMITS) {
        let size = image.size();
        assert!(size.width <= LIMITS.max_side && size.height <= LIMITS.max_side);
        // What is reserved before anything is decoded.
        let promised = promised.expect("what can be decoded can be looked at");
        assert_eq!(promised.image_bytes(), image.size_bytes());
    }
    let _ = image_codec::decode_mask(bytes, LIMITS);
}

/// The parameters inside a picture, which any file may pretend to have.
pub fn picture_metadata(bytes: &[u8]) {
    let _ = image_codec::read_metadata(bytes);
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::each_fuzzed;

    #[test]
    fn what_the_fuzzer_found_holds() {
        each_fuzzed("image_file", super::image_file);
        each_fuzzed("picture_metadata", super::picture_metadata);
    }
}
