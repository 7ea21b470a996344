//! Frames: their headers, their masks, and messages out of a receive buffer.

use std::hint::black_box;

use ringcast::proto::ws::frame::write_masked;
use ringcast::proto::ws::{Decoder, Event, FrameHeader, Opcode, Role};
use ringcast::simd;

use super::Scenarios;
use crate::meter::Meter;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub(super) const ALL: Scenarios = &[
    ("ws: header, 7-bit length", "header", |meter| header(meter, 100)),
    ("ws: header, 64-bit length", "header", |meter| header(meter, 70_000)),
    ("ws: decode masked texts of 128 B", "message", |meter| decode(meter, 128)),
    ("ws: decode masked texts of 4 KiB", "message", |meter| decode(meter, 4096)),
    ("simd: unmask 64 B", "call", |meter| unmask(meter, simd::xor_mask, 64)),
    ("simd: unmask 61 B", "call", |meter| unmask(meter, simd::xor_mask, 61)),
    ("simd: unmask 1 KiB", "call", |meter| unmask(meter, simd::xor_mask, 1024)),
    ("simd: unmask 64 KiB", "call", |meter| unmask(meter, simd::xor_mask, 65_536)),
    ("simd: unmask 64 B, portable", "call", |meter| unmask(meter, simd::portable::xor_mask, 64)),
    ("simd: unmask 1 KiB, portable", "call", |meter| {
        unmask(meter, simd::portable::xor_mask, 1024);
    }),
    ("simd: unmask 64 KiB, portable", "call", |meter| {
        unmask(meter, simd::portable::xor_mask, 65_536);
    }),
];

fn header(meter: &mut Meter, payload_bytes: u64) {
    let header = FrameHeader {
        fin: true,
        compressed: false,
        opcode: Opcode::Text,
        mask: Some(KEY),
        payload_bytes,
    };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    let parse = || {
        let (parsed, _) = FrameHeader::parse(black_box(&bytes), Role::Server)
            .expect("a header of ours")
            .expect("a whole header");
        black_box(&parsed);
    };
    parse();
    meter.count(1_000, || (0..1_000).for_each(|_| parse()));
}

/// A receive buffer full of messages, each with one frame, as a busy publisher sends them.
fn decode(meter: &mut Meter, payload_bytes: usize) {
    const MESSAGES: usize = 100;
    let mut received = Vec::new();
    for _ in 0..MESSAGES {
        write_masked(&mut received, Opcode::Text, &vec![b'x'; payload_bytes], KEY);
    }
    let mut decoder = Decoder::new(Role::Server);
    let mut decode_all = |received: &mut [u8]| {
        let mut input = received;
        let mut messages = 0;
        while let Some(event) = decoder.next(&mut input, MESSAGE_BYTES_MAX).expect("valid frames") {
            assert!(matches!(event, Event::Text(_)));
            black_box(&event);
            messages += 1;
        }
        assert_eq!(messages, MESSAGES);
    };
    decode_all(&mut received.clone());
    meter.count(MESSAGES as u64, || decode_all(&mut received));
}

fn unmask(meter: &mut Meter, mask: fn(&mut [u8], [u8; 4], usize), bytes: usize) {
    let mut payload = vec![b'x'; bytes];
    mask(&mut payload, KEY, 0);
    meter.count(10, || (0..10).for_each(|_| mask(black_box(&mut payload), KEY, 0)));
}
