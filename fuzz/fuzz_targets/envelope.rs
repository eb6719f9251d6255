#![no_main]
//! What the envelope says stands in the body as serde_json reads it.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringway_fuzz::envelope(bytes);
});
