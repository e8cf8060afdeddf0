//! See `pentimento_pipeline::fuzzing::prompt`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_pipeline::fuzzing::prompt(bytes));
