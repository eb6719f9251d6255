#![no_main]
//! What we emit to a backend is one request, the same to three other parsers.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringway_fuzz::reread(bytes);
});
