#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::simd::fuzz::masks(data));
