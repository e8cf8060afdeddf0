//! Files that callers send as images: read as an image and as a mask, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pentimento_service::{InputLimits, image_codec};

const LIMITS: InputLimits = InputLimits {
    max_side: 256,
    max_bytes: 1 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    let promised = image_codec::decoded_bytes(bytes, LIMITS);
    if let Ok(image) = image_codec::decode(bytes, LIMITS) {
        let size = image.size();
        assert!(size.width <= LIMITS.max_side && size.height <= LIMITS.max_side);
        // What is reserved before anything is decoded.
        assert_eq!(promised.expect("a file that can be decoded has a size"), image.size_bytes());
    }
    let _ = image_codec::decode_mask(bytes, LIMITS);
});
