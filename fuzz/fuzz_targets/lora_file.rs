//! See `pentimento_weights::fuzzing::lora_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_weights::fuzzing::lora_file(bytes));
