#![no_main]
//! The head we write to a backend is the one that was asked for, as httparse reads it.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::reencode(bytes));
