//! Coming back: everybody was away and asks for the same messages at once, beside a client that was
//! not away and must not notice.
//!
//! That bystander publishes to a channel of its own and waits for its own message, again and again;
//! it is looked at after every receive of the others, so what it waits for is the server and not the
//! generator's own work.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Better, Column, Load, Meter, NUMBER_FIRST, Outcome, Requests};
use crate::generator::{Fleet, Greeting, TEXT, write_masked};
use crate::machine;
use crate::servers::Running;

const CHANNEL: &str = "missed";

/// How many messages each one asks for.
pub(super) const MESSAGES: u64 = 200;

/// What the server is told: it keeps what will be asked for.
pub(super) const ENVIRONMENT: &[(&str, &str)] =
    &[("RINGCAST_HISTORY_MESSAGES", "300"), ("RINGCAST_HISTORY_AGE", "10m")];

/// How long catching up may take.
const TIME_MAX: Duration = Duration::from_secs(60);

/// How long the bystander waits between a message and the next publish.
const BETWEEN: Duration = Duration::from_micros(500);

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per message caught up", Better::Lower),
        Column::also("seconds until all had caught up", 2),
        Column::also("bystander's p99 µs before", 0),
        Column::also("bystander's p99 µs during", 0),
        Column::also("ratio", 2),
        Column::also("bystander's messages during", 0),
        Column::also("RSS grown by, MiB", 1),
        Column::also("not exactly what was missed", 0),
    ]
}

pub(super) fn run(running: &Running, load: &Load) -> io::Result<Outcome> {
    machine::raise_descriptor_limit()?;
    let greeting = Greeting::new(running.address, running.server.dialect());
    let epoch = publish_all(&greeting)?;
    let mut bystander = Bystander::open(&greeting)?;
    let mut fleet = Fleet::new(load.sleep)?;
    fleet.open(&greeting, load.subscribers)?;
    let mut crowd = vec![0_u64; load.subscribers];

    let mut quiet = Latencies::new()?;
    let started = Instant::now();
    while started.elapsed() < load.warm_up() + load.measured() {
        if started.elapsed() < load.warm_up() {
            quiet.0.reset();
        }
        hear(&mut fleet, &mut crowd, &mut bystander, &mut quiet)?;
    }

    let resident = machine::resident_bytes(running.pid())?;
    let meter = Meter::start(running)?;
    let mut busy = Latencies::new()?;
    let mut ask = Vec::new();
    let text = format!(
        r#"{{"type":"subscribe","id":1,"channel":"{CHANNEL}","since":{{"epoch":"{epoch}","seq":0}}}}"#
    );
    write_masked(&mut ask, TEXT, text.as_bytes());
    let mut missing = load.subscribers;
    for client in 0..load.subscribers {
        fleet.send(client, &ask)?;
        // Whoever has asked reads: what nobody read would fill the kernel's memory.
        missing -= hear(&mut fleet, &mut crowd, &mut bystander, &mut busy)?;
    }
    while missing > 0 && meter.started.elapsed() < TIME_MAX {
        missing -= hear(&mut fleet, &mut crowd, &mut bystander, &mut busy)?;
    }
    let (seconds, cpu_ns) = meter.stop(running)?;
    let grown = machine::resident_bytes(running.pid())?.saturating_sub(resident);

    let inexact = crowd.iter().filter(|heard| **heard != MESSAGES).count();
    let mut warnings = Vec::new();
    if inexact > 0 {
        warnings.push(format!("{inexact} clients did not get exactly what they had missed"));
    }
    if fleet.closed() > 0 {
        warnings.push(format!("{} connections were closed by the server", fleet.closed()));
    }
    let figures = vec![
        cpu_ns / (load.subscribers as u64 * MESSAGES) as f64,
        seconds,
        quiet.p99_us(),
        busy.p99_us(),
        busy.p99_us() / quiet.p99_us(),
        busy.0.len() as f64,
        grown as f64 / f64::from(1 << 20),
        inexact as f64,
    ];
    Ok(Outcome { figures, warnings })
}

/// Publishes what will be missed; returns the epoch of the channel.
fn publish_all(greeting: &Greeting) -> io::Result<String> {
    let mut stream = greeting.open_one()?;
    let mut frames = Vec::new();
    let text = format!(r#"{{"type":"subscribe","id":1,"channel":"{CHANNEL}"}}"#);
    write_masked(&mut frames, TEXT, text.as_bytes());
    let requests = Requests::new(greeting.dialect, CHANNEL);
    for number in 0..MESSAGES {
        requests.write_publish(&mut frames, NUMBER_FIRST + number);
    }
    stream.write_all(&frames)?;
    let mut heard = Vec::new();
    let mut bytes = [0; 4096];
    while memchr::memmem::find_iter(&heard, br#""type":"ack""#).count() < MESSAGES as usize {
        match stream.read(&mut bytes)? {
            0 => return Err(io::Error::other("the server closed the publisher's connection")),
            count => heard.extend_from_slice(&bytes[..count]),
        }
    }
    let name = br#""epoch":""#;
    let epoch = memchr::memmem::find(&heard, name).map(|at| &heard[at + name.len()..]);
    let epoch = epoch.and_then(|rest| rest.split(|byte| *byte == b'"').next());
    let epoch = epoch.ok_or_else(|| io::Error::other("the server names no epoch"))?;
    Ok(String::from_utf8_lossy(epoch).into_owned())
}

/// Hears everybody once; returns how many have now all that they missed.
fn hear(
    fleet: &mut Fleet,
    crowd: &mut [u64],
    bystander: &mut Bystander,
    latencies: &mut Latencies,
) -> io::Result<usize> {
    let mut done = 0;
    let mut pings = Vec::new();
    let mut looked = bystander.look(latencies);
    fleet.hear(|client, frames, _| {
        for frame in frames {
            if frame.is_message() {
                crowd[client] += 1;
                done += usize::from(crowd[client] == MESSAGES);
            } else if frame.is_ping() {
                pings.push((client, frame.payload.to_vec()));
            }
        }
        if looked.is_ok() {
            looked = bystander.look(latencies);
        }
    })?;
    fleet.answer(&mut pings)?;
    looked.map(|()| done)
}

/// How long the bystander's messages took.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> io::Result<Self> {
        Ok(Self(Histogram::new(3).map_err(io::Error::other)?))
    }

    fn p99_us(&self) -> f64 {
        self.0.value_at_quantile(0.99) as f64 / 1000.0
    }
}

/// The client that was never away.
struct Bystander {
    stream: TcpStream,
    publish: Vec<u8>,
    /// When it published what has not come back.
    published: Option<Instant>,
    /// When its last message came back.
    heard: Instant,
}

impl Bystander {
    fn open(greeting: &Greeting) -> io::Result<Self> {
        let greeting = Greeting { channel: Some("bystander"), ..greeting.clone() };
        let stream = greeting.open_one()?;
        stream.set_nonblocking(true)?;
        let mut publish = Vec::new();
        let text = br#"{"type":"publish","channel":"bystander","payload":1}"#;
        write_masked(&mut publish, TEXT, text);
        Ok(Self { stream, publish, published: None, heard: Instant::now() })
    }

    /// Does what is due, and waits for nothing.
    fn look(&mut self, latencies: &mut Latencies) -> io::Result<()> {
        let Some(published) = self.published else {
            if self.heard.elapsed() >= BETWEEN {
                self.published = Some(Instant::now());
                self.stream.write_all(&self.publish)?;
            }
            return Ok(());
        };
        let mut bytes = [0; 512];
        match self.stream.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(0) => Err(io::Error::other("the server closed the bystander's connection")),
            // A ping comes now and then, and is not what it waits for.
            Ok(count) if memchr::memmem::find(&bytes[..count], b"message").is_none() => Ok(()),
            Ok(_) => {
                let _ = latencies.0.record(published.elapsed().as_nanos() as u64);
                (self.published, self.heard) = (None, Instant::now());
                Ok(())
            }
        }
    }
}
