//! A signature and a MUD file of somebody who means harm.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wardline_fuzz::mud(data));
