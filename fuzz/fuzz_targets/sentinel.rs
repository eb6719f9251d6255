#![no_main]
//! What a sentinel hides comes back as it was, and never ends a header line.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::sentinel(bytes));
