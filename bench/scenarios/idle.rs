//! Idle memory: what a connection costs that only stays.
//!
//! Server memory is the growth of its resident set. Kernel memory is the growth of slab, which
//! holds both ends of each connection and the generator's epoll entry: the same for every server,
//! so the difference to the floor, whose sockets have nothing armed, is the server's doing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::{Better, Column, Load, Outcome, fanout};
use crate::generator::{Fleet, Greeting};
use crate::machine;
use crate::servers::Running;

/// How long the kernel and the server get to come to rest before memory is read.
const SETTLE: Duration = Duration::from_millis(1500);

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server RSS bytes per connection", Better::Lower),
        Column::main("kernel slab bytes per connection, both ends (socket caches)", Better::Lower),
        Column::also("all slab pages, both ends", 0),
        Column::also("connections", 0),
    ]
}

pub(super) fn run(running: &Running, load: &Load) -> io::Result<Outcome> {
    let limit = machine::raise_descriptor_limit()?;
    // The generator, and every server but one with direct descriptors, needs one each.
    let count = load.idle_connections.min(limit as usize - 200);
    let mut fleet = Fleet::new(true)?;
    thread::sleep(SETTLE);
    let before = Memory::read(running)?;
    let greeting = Greeting {
        channel: Some(fanout::CHANNEL),
        ..Greeting::new(running.address, running.server.dialect())
    };
    fleet.open(&greeting, count)?;
    rest(&mut fleet)?;
    let after = Memory::read(running)?;
    let each = |before: f64, after: f64| (after - before) / count as f64;
    let mut warnings = Vec::new();
    if fleet.closed() > 0 {
        warnings.push(format!("{} connections did not stay", fleet.closed()));
    }
    if count < load.idle_connections {
        warnings.push(format!("only {count} connections: the limit on descriptors is {limit}"));
    }
    let figures = vec![
        each(before.resident, after.resident),
        each(before.objects, after.objects),
        each(before.pages, after.pages),
        count as f64,
    ];
    Ok(Outcome { figures, warnings })
}

/// Answers pings while everything settles.
fn rest(fleet: &mut Fleet) -> io::Result<()> {
    let started = Instant::now();
    while started.elapsed() < SETTLE {
        let mut pings = Vec::new();
        fleet.hear(|client, frames, _| {
            for frame in frames.filter(super::super::generator::Frame::is_ping) {
                pings.push((client, frame.payload.to_vec()));
            }
        })?;
        fleet.answer(&mut pings)?;
    }
    Ok(())
}

struct Memory {
    resident: f64,
    objects: f64,
    pages: f64,
}

impl Memory {
    fn read(running: &Running) -> io::Result<Self> {
        Ok(Self {
            resident: machine::resident_bytes(running.pid())? as f64,
            objects: machine::socket_slab_bytes().map_or(f64::NAN, |bytes| bytes as f64),
            pages: machine::slab_bytes()? as f64,
        })
    }
}
