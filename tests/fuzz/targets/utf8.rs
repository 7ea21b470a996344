#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::proto::ws::utf8::fuzz::utf8(data));
