#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcast::proto::msgpack::fuzz::msgpack(data));
