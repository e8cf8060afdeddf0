//! See `pentimento_api::fuzzing::a1111_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_api::fuzzing::a1111_body(bytes));
