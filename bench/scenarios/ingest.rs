//! Ingest: many publishers, hardly anyone who listens.
//!
//! A publish is outstanding until its ack is back; at a plain server, which sends none, until
//! the subscriber has it.

use std::io;
use std::time::{Duration, Instant};

use super::{
    Better, Column, Load, Meter, NUMBER_FIRST, Outcome, PAYLOAD_BYTES, Requests, fanout, number_in,
};
use crate::generator::{Fleet, Greeting};
use crate::servers::{Dialect, Running, Sends};

/// Connections that publish.
pub(super) const PUBLISHERS: usize = 16;

/// Publishes outstanding on each.
const WINDOW: u64 = 32;

/// Numbers of one publisher, so that a message tells whose it is.
const NUMBERS_EACH: u64 = 1_000_000;

/// How long the last answers may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per publish", Better::Lower),
        Column::main("publishes/s", Better::Higher),
        Column::also("bytes per send, server's count", 0),
        Column::also("lost", 0),
    ]
}

#[derive(Default)]
struct Seen {
    sent: [u64; PUBLISHERS],
    done: [u64; PUBLISHERS],
    delivered: u64,
    lost: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Seen {
    fn all_done(&self) -> u64 {
        self.done.iter().sum()
    }

    fn all_sent(&self) -> u64 {
        self.sent.iter().sum()
    }
}

pub(super) fn run(running: &Running, load: &Load, subscribed: bool) -> io::Result<Outcome> {
    let dialect = running.server.dialect();
    let acks = dialect != Dialect::Plain;
    let mut greeting = Greeting {
        path: if dialect == Dialect::Ringcast { "/ws" } else { "/pub" },
        ..Greeting::new(running.address, dialect)
    };
    let mut fleet = Fleet::new(load.sleep)?;
    fleet.open(&greeting, PUBLISHERS)?;
    if subscribed {
        greeting.channel = Some(fanout::CHANNEL);
        greeting.path = "/ws";
        fleet.open(&greeting, 1)?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let requests = Requests::new(dialect, fanout::CHANNEL);
    let mut seen = Seen::default();
    let mut bytes = Vec::new();
    let started = Instant::now();
    let mut measured: Option<(Meter, u64, Option<Sends>)> = None;
    let mut figures = Vec::new();
    let mut stopped: Option<Instant> = None;
    loop {
        for publisher in 0..PUBLISHERS {
            let room = WINDOW - (seen.sent[publisher] - seen.done[publisher]);
            if stopped.is_some() || room == 0 {
                continue;
            }
            bytes.clear();
            for _ in 0..room {
                let number = publisher as u64 * NUMBERS_EACH + seen.sent[publisher] % NUMBERS_EACH;
                requests.write_publish(&mut bytes, NUMBER_FIRST + number);
                seen.sent[publisher] += 1;
            }
            fleet.send(publisher, &bytes)?;
        }
        fleet.hear(|client, frames, _| {
            for frame in frames {
                if frame.is_message() {
                    seen.delivered += 1;
                    let number = number_in(frame.payload, PAYLOAD_BYTES)
                        .unwrap_or(0)
                        .saturating_sub(NUMBER_FIRST);
                    if !acks && let Some(done) = seen.done.get_mut((number / NUMBERS_EACH) as usize)
                    {
                        *done += 1;
                    }
                } else if frame.is_type(b"ack") {
                    seen.done[client] += 1;
                } else if frame.is_type(b"gap") {
                    let range = frame.number(b"\"from\":").zip(frame.number(b"\"to\":"));
                    seen.lost += range.map_or(0, |(from, to)| to + 1 - from);
                } else {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| frame.text());
                }
            }
        })?;
        if let Some(stopped) = stopped {
            let heard = !subscribed || seen.delivered + seen.lost >= seen.all_sent();
            let over = stopped.elapsed() > DRAIN_TIME_MAX;
            if over || (heard && seen.all_done() == seen.all_sent()) {
                figures.push(seen.lost as f64);
                return Ok(Outcome { figures, warnings: warnings(&seen, subscribed, &fleet) });
            }
            continue;
        }
        match &measured {
            None if started.elapsed() >= load.warm_up() => {
                let sends = running.sends_counted();
                measured = Some((Meter::start(running)?, seen.all_done(), sends));
            }
            Some((meter, before, sends)) if meter.started.elapsed() >= load.measured() => {
                let (seconds, cpu_ns) = meter.stop(running)?;
                let count = (seen.all_done() - before) as f64;
                let each = Sends::bytes_each(*sends, running.sends_counted());
                figures = vec![cpu_ns / count, count / seconds, each];
                stopped = Some(Instant::now());
            }
            _ => {}
        }
    }
}

fn warnings(seen: &Seen, subscribed: bool, fleet: &Fleet) -> Vec<String> {
    let mut warnings = Vec::new();
    if seen.lost > 0 {
        warnings.push(format!("{} deliveries LOST (announced by gap notices)", seen.lost));
    }
    let missing = seen.all_sent().saturating_sub(seen.delivered + seen.lost);
    if subscribed && missing > 0 {
        warnings.push(format!("{missing} deliveries never came and were not announced"));
    }
    if seen.all_done() != seen.all_sent() {
        warnings.push(format!("{} done of {} publishes", seen.all_done(), seen.all_sent()));
    }
    if fleet.closed() > 0 {
        warnings.push(format!("{} connections were closed by the server", fleet.closed()));
    }
    if let Some(text) = &seen.first_error {
        warnings.push(format!("{} frames nobody expected, first: {text}", seen.errors));
    }
    warnings
}
