#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::proto::ws::deflate::fuzz::deflate(data));
