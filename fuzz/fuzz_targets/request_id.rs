#![no_main]
//! An id is found or not, without a panic, and is JSON that stands in the body.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::request_id(bytes));
