//! Any bytes as a frame: the parser against the naive reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardline_fuzz::parse(data));
