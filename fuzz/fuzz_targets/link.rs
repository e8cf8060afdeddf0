//! See `pentimento_storage::fuzzing::link`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_storage::fuzzing::link(bytes));
