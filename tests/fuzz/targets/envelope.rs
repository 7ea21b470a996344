#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::proto::envelope::request::fuzz::envelope(data));
