//! The parameters inside a picture, which any file may pretend to have.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pentimento_service::image_codec;

fuzz_target!(|bytes: &[u8]| {
    let _ = image_codec::read_metadata(bytes);
});
