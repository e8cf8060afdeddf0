//! See `pentimento_outbound::fuzzing::address`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pentimento_outbound::fuzzing::address(bytes));
