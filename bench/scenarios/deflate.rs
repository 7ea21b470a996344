//! Compression: what it costs to send compressed messages, beside plain ones that are as long on the
//! wire.
//!
//! A message is compressed once, whoever gets it: so a delivery should cost what any delivery of so
//! many bytes costs, and next to nothing more.

use std::io;

use super::fanout::{self, Audience, Measured};
use super::{Better, Column, Load, Outcome, Payload, Requests};
use crate::servers::Running;

/// Bytes of the payload before compression.
const PAYLOAD_BYTES: usize = 1024;

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per delivery", Better::Lower),
        Column::also("the same, plain, of as many bytes", 0),
        Column::also("ratio", 2),
        Column::also("bytes of a message on the wire", 0),
        Column::also("the same, plain", 0),
        Column::also("lost", 0),
    ]
}

pub(super) fn run(running: &Running, load: &Load) -> io::Result<Outcome> {
    let publish = |deflate, payload| {
        let found = fanout::measure(running, load, 1, Audience { deflate, payload })?;
        io::Result::Ok((bytes_each(&found), found))
    };
    let payload = Payload { bytes: PAYLOAD_BYTES, is_varied: true };
    let (compressed_bytes, compressed) = publish(true, payload)?;
    let requests =
        Requests { dialect: running.server.dialect(), channel: fanout::CHANNEL, payload };
    let around = requests.message_bytes() - PAYLOAD_BYTES;
    let bytes = (compressed_bytes.round() as usize).saturating_sub(around);
    let (plain_bytes, plain) = publish(false, Payload { bytes, is_varied: true })?;
    let figures = vec![
        compressed.cpu_ns_each(),
        plain.cpu_ns_each(),
        compressed.cpu_ns_each() / plain.cpu_ns_each(),
        compressed_bytes,
        plain_bytes,
        compressed.lost + plain.lost,
    ];
    let warnings = compressed.warnings.into_iter().chain(plain.warnings).collect();
    Ok(Outcome { figures, warnings })
}

fn bytes_each(found: &Measured) -> f64 {
    found.bytes / found.deliveries
}
