#![no_main]
//! A stream has the same events however it is cut, and with comments of ours between them.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringway_fuzz::events(bytes));
