//! A small policy and frames in sequence, on the host model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardline_fuzz::decide(data));
