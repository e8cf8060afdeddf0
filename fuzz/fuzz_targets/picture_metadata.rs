//! See `pentimento_service::fuzzing::picture_metadata`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_service::fuzzing::picture_metadata(bytes));
