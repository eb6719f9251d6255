#![no_main]
//! A token opens to what it was made of, and a forged one to nothing.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::session_token(bytes));
