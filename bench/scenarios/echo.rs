//! Echo: what one message in and one out costs, and whether the answers to what one recv
//! brought leave in one send.

use std::io;
use std::time::Instant;

use super::{Better, Column, Load, Meter, Outcome, PAYLOAD_BYTES};
use crate::generator::{Fleet, Greeting, TEXT, write_masked};
use crate::servers::{Dialect, Running};

/// Connections.
pub(super) const COUNT: usize = 64;

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per message", Better::Lower),
        Column::also("messages/s", 0),
        Column::also("answers per receive", 2),
        Column::also("bytes per send, server's count", 0),
    ]
}

pub(super) fn run(running: &Running, load: &Load, depth: usize) -> io::Result<Outcome> {
    let greeting =
        Greeting { path: "/echo", ..Greeting::new(running.address, running.server.dialect()) };
    let mut fleet = Fleet::new(load.sleep)?;
    fleet.open(&greeting, COUNT)?;

    let text: String = ('a'..='z').cycle().take(PAYLOAD_BYTES).collect();
    let mut batch = Vec::new();
    for _ in 0..depth {
        write_masked(&mut batch, TEXT, text.as_bytes());
    }
    // The floor's answers are ready-made: as long as they should be, not the same.
    let verify = greeting.dialect != Dialect::Canned;

    let mut missing = [depth; COUNT];
    let mut whole: Vec<usize> = (0..COUNT).collect();
    let mut seen = Seen::default();
    let started = Instant::now();
    let mut measured: Option<(Meter, Seen, _)> = None;
    loop {
        for index in whole.drain(..) {
            fleet.send(index, &batch)?;
        }
        fleet.hear(|index, frames, _| {
            seen.receives += 1;
            for frame in frames {
                let right = frame.payload.len() == PAYLOAD_BYTES
                    && (!verify || frame.payload == text.as_bytes());
                seen.wrong += u64::from(!right);
                seen.messages += 1;
                missing[index] = missing[index].saturating_sub(1);
            }
            if missing[index] == 0 {
                missing[index] = depth;
                whole.push(index);
            }
        })?;
        let elapsed = started.elapsed();
        match &measured {
            None if elapsed >= load.warm_up() => {
                let sends = running.sends_counted();
                measured = Some((Meter::start(running)?, seen, sends));
            }
            Some((meter, before, sends)) if meter.started.elapsed() >= load.measured() => {
                let (seconds, cpu_ns) = meter.stop(running)?;
                let messages = (seen.messages - before.messages) as f64;
                let receives = (seen.receives - before.receives) as f64;
                let bytes = crate::servers::Sends::bytes_each(*sends, running.sends_counted());
                let figures =
                    vec![cpu_ns / messages, messages / seconds, messages / receives, bytes];
                return Ok(Outcome { figures, warnings: warnings(&seen, fleet.closed()) });
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Seen {
    messages: u64,
    receives: u64,
    wrong: u64,
}

fn warnings(seen: &Seen, closed: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if seen.wrong > 0 {
        warnings.push(format!("{} answers were not what was sent", seen.wrong));
    }
    if closed > 0 {
        warnings.push(format!("{closed} connections were closed by the server"));
    }
    warnings
}
