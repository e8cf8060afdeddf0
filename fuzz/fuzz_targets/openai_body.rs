//! See `pentimento_api::fuzzing::openai_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_api::fuzzing::openai_body(bytes));
