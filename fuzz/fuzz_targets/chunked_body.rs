#![no_main]
//! A body in chunks has the same payload and the same end wherever it is cut.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::chunked_body(bytes));
