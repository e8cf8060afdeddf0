//! See `pentimento_service::fuzzing::image_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_service::fuzzing::image_file(bytes));
