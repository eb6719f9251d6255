#![no_main]
//! A request head means the same however it is cut, and what we accept httparse accepts.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::request_head(bytes));
