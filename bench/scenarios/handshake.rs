//! Handshakes: connect, upgrade, close with a reset, again.
//!
//! It goes in waves, step by step: all connect, all ask, all are answered, all close. A client's
//! connect costs more than a server's accept, so with each client on its own way a fast server
//! would mostly be charged for falling asleep and waking; in a wave a backlog forms, as it does
//! when many clients return at once.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use super::{Better, Column, Load, Meter, Outcome};
use crate::generator::Greeting;
use crate::servers::Running;

/// Connections opened together.
pub(super) const AT_ONCE: usize = 256;

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per handshake", Better::Lower),
        Column::also("handshakes/s", 0),
    ]
}

pub(super) fn run(running: &Running, load: &Load) -> io::Result<Outcome> {
    let greeting = Greeting::new(running.address, running.server.dialect());
    repeat(&greeting, load.warm_up())?;
    let meter = Meter::start(running)?;
    let count = repeat(&greeting, load.measured())? as f64;
    let (seconds, cpu_ns) = meter.stop(running)?;
    Ok(Outcome { figures: vec![cpu_ns / count, count / seconds], warnings: Vec::new() })
}

/// Opens and closes for a while; returns how many.
fn repeat(greeting: &Greeting, time: std::time::Duration) -> io::Result<u64> {
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < time {
        let mut streams: Vec<TcpStream> = Vec::with_capacity(AT_ONCE);
        for _ in 0..AT_ONCE {
            streams.push(greeting.connect()?);
        }
        for stream in &mut streams {
            greeting.ask(stream)?;
        }
        for stream in &mut streams {
            greeting.answered(stream)?;
            count += 1;
        }
    }
    Ok(count)
}
