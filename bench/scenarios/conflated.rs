//! Conflation: one publisher offers far more than anybody wants, and each subscriber gets the newest
//! value of each key at the rule's interval.
//!
//! Beside it stands `fanout-64`, where nothing is conflated: there an offered update costs the
//! server as many deliveries as there are subscribers.

use std::io;
use std::time::{Duration, Instant};

use super::{Better, Column, Load, Meter, NUMBER_FIRST, Outcome, PAYLOAD_BYTES, number_in};
use crate::generator::{Fleet, Frames, Greeting, TEXT, write_masked};
use crate::servers::{Dialect, Running};

const CHANNEL: &str = "conflated";

/// Different values that are published in turn.
pub(super) const KEYS: u64 = 500;

/// Updates offered each second.
pub(super) const RATE: u64 = 50_000;

/// What the server is told: the rule, and outboxes that hold a flush.
pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("RINGCAST_CONFLATE_INTERVAL", "100ms"),
    ("RINGCAST_CONFLATE_KEY", "k"),
    ("RINGCAST_LIMITS_OUTBOX_MESSAGES_MAX", "1024"),
    ("RINGCAST_LIMITS_OUTBOX_BYTES_MAX", "256KiB"),
];

/// Of so many subscribers one has every message looked at.
const CHECKED_EVERY: usize = 64;

/// How long the last values may take: a few intervals.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per offered update", Better::Lower),
        Column::also("offered/s", 0),
        Column::also("deliveries/s", 0),
        Column::also("most of one key in a second", 1),
        Column::also("server's core busy %", 0),
        Column::also("lost", 0),
    ]
}

/// What one of the subscribers that are looked at knows.
#[derive(Clone)]
struct Checked {
    /// The newest number of each key.
    newest: Vec<u64>,
    /// How many came, while it counts.
    count: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    deliveries: u64,
    lost: u64,
    others: u64,
}

struct Market {
    fleet: Fleet,
    publisher: usize,
    checked: Vec<Checked>,
    published: u64,
    seen: Seen,
    pings: Vec<(usize, Vec<u8>)>,
}

/// Offers updates on schedule.
pub(super) fn run(running: &Running, load: &Load) -> io::Result<Outcome> {
    let mut market = Market::open(running, load)?;
    let started = Instant::now();
    let due = || (started.elapsed().as_secs_f64() * RATE as f64) as u64;
    while started.elapsed() < load.warm_up() {
        market.publish(due())?;
        market.hear()?;
    }
    market.checked.iter_mut().for_each(|checked| checked.count.fill(0));
    let (meter, before, published) = (Meter::start(running)?, market.seen, market.published);
    while meter.started.elapsed() < load.measured() {
        market.publish(due())?;
        market.hear()?;
    }
    let (seconds, cpu_ns) = meter.stop(running)?;
    let offered = (market.published - published) as f64;
    let deliveries = (market.seen.deliveries - before.deliveries) as f64;
    let most = market.checked.iter().flat_map(|checked| &checked.count).max();
    let most = f64::from(most.copied().unwrap_or_default()) / seconds;
    market.drain()?;
    let figures = vec![
        cpu_ns / offered,
        offered / seconds,
        deliveries / seconds,
        most,
        cpu_ns / seconds / 1e7,
        market.seen.lost as f64,
    ];
    Ok(Outcome { figures, warnings: market.warnings() })
}

impl Market {
    fn open(running: &Running, load: &Load) -> io::Result<Self> {
        let dialect = running.server.dialect();
        let mut greeting =
            Greeting { channel: Some(CHANNEL), ..Greeting::new(running.address, dialect) };
        let mut fleet = Fleet::new(load.sleep)?;
        fleet.open(&greeting, load.subscribers)?;
        greeting.channel = None;
        let publisher = fleet.open(&greeting, 1)?;
        let keys = KEYS as usize;
        let checked = Checked { newest: vec![0; keys], count: vec![0; keys] };
        Ok(Self {
            fleet,
            publisher,
            checked: vec![checked; load.subscribers.div_ceil(CHECKED_EVERY)],
            published: 0,
            seen: Seen::default(),
            pings: Vec::new(),
        })
    }

    /// Publishes what is due by now, which has come to `due`.
    fn publish(&mut self, due: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.published < due {
            let number = NUMBER_FIRST + self.published;
            let text = format!(
                r#"{{"type":"publish","channel":"{CHANNEL}","payload":{}}}"#,
                payload(number)
            );
            write_masked(&mut bytes, TEXT, text.as_bytes());
            self.published += 1;
        }
        if bytes.is_empty() { Ok(()) } else { self.fleet.send(self.publisher, &bytes) }
    }

    fn hear(&mut self) -> io::Result<()> {
        let Self { fleet, checked, seen, pings, publisher, .. } = self;
        fleet.hear(|client, frames: &mut Frames<'_>, _| {
            let is_checked = client != *publisher && client % CHECKED_EVERY == 0;
            for frame in frames {
                if frame.is_message() {
                    seen.deliveries += 1;
                    if let (true, Some(number)) =
                        (is_checked, number_in(frame.payload, PAYLOAD_BYTES))
                    {
                        let checked = &mut checked[client / CHECKED_EVERY];
                        let key = (number % KEYS) as usize;
                        checked.newest[key] = checked.newest[key].max(number);
                        checked.count[key] += 1;
                    }
                } else if frame.is_type(b"gap") {
                    seen.lost += 1;
                } else if frame.is_ping() {
                    pings.push((client, frame.payload.to_vec()));
                } else {
                    seen.others += 1;
                }
            }
        })?;
        self.fleet.answer(&mut self.pings)?;
        match self.fleet.closed() {
            0 => Ok(()),
            closed => Err(io::Error::other(format!("the server closed {closed} connections"))),
        }
    }

    /// Waits for the last values.
    fn drain(&mut self) -> io::Result<()> {
        let started = Instant::now();
        while !self.is_even() && started.elapsed() < DRAIN_TIME_MAX {
            self.hear()?;
        }
        Ok(())
    }

    /// Whether everybody who is looked at has the last value of each key.
    fn is_even(&self) -> bool {
        let last = NUMBER_FIRST + self.published;
        let is_last = |(key, newest): (usize, &u64)| {
            *newest + KEYS >= last && *newest < last && *newest % KEYS == key as u64
        };
        self.checked.iter().all(|checked| checked.newest.iter().enumerate().all(is_last))
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.seen.lost > 0 {
            warnings.push(format!("{} gap notices", self.seen.lost));
        }
        if !self.is_even() {
            warnings.push("the last value of a key never came".into());
        }
        if self.seen.others > 0 {
            warnings.push(format!("{} frames nobody expected", self.seen.others));
        }
        warnings
    }
}

/// A payload of exactly `PAYLOAD_BYTES` bytes: `{"n":10000000,"k":123,"pad":"..."}`.
fn payload(number: u64) -> String {
    // Three digits each.
    let key = 100 + number % KEYS;
    let mut text = format!(r#"{{"n":{number},"k":{key},"pad":""#);
    while text.len() < PAYLOAD_BYTES - 2 {
        text.push('r');
    }
    text.push_str("\"}");
    text
}

/// Whether this server can be asked this: nobody else here conflates.
pub(super) fn suits(dialect: Dialect) -> bool {
    dialect == Dialect::Ringcast
}
