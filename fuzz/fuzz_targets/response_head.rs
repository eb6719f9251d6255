#![no_main]
//! The same for an answer's head.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::response_head(bytes));
