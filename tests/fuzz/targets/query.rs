#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::proto::http::query::fuzz::query(data));
