//! Fan-out: one publisher, many subscribers, every message to everyone.
//!
//! In the closed loop a publish is outstanding until every subscriber has it; at a fixed rate
//! publishes leave on schedule, and latency is counted from the schedule, so a server that falls
//! behind cannot hide it.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Better, Column, Load, Meter, NUMBER_FIRST, Outcome, Payload, Requests, number_in};
use crate::generator::{Fleet, Frame, Frames, Greeting};
use crate::servers::{Dialect, Running, Sends};

pub(super) const CHANNEL: &str = "fanout";

/// Every so many-th subscriber has the number in every message checked.
const CHECKED_EVERY: usize = 64;

/// How long the last messages may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::main("server CPU ns per delivery", Better::Lower),
        Column::main("deliveries/s", Better::Higher),
        Column::also("bytes per receive", 0),
        Column::also("bytes per send, server's count", 0),
        Column::also("server's core busy %", 0),
        Column::also("lost", 0),
    ]
}

pub(super) fn rate_columns() -> Vec<Column> {
    vec![
        Column::main("p50 µs", Better::Lower),
        Column::main("p99 µs", Better::Lower),
        Column::also("p99.9 µs", 0),
        Column::also("last subscriber p50 µs", 0),
        Column::main("last subscriber p99 µs", Better::Lower),
        Column::also("server CPU ns per delivery", 0),
        Column::also("lost", 0),
    ]
}

/// Publishes as long as fewer than `window` are not yet everywhere.
pub(super) fn closed_loop(running: &Running, load: &Load, window: u64) -> io::Result<Outcome> {
    let found = measure(running, load, window, Audience::USUAL)?;
    let figures = vec![
        found.cpu_ns_each(),
        found.deliveries / found.seconds,
        found.bytes / found.receives,
        found.bytes_per_send,
        found.cpu_ns / found.seconds / 1e7,
        found.lost,
    ];
    Ok(Outcome { figures, warnings: found.warnings })
}

/// What is published, and how it is taken.
#[derive(Clone, Copy)]
pub(super) struct Audience {
    /// The subscribers offer permessage-deflate.
    pub(super) deflate: bool,
    pub(super) payload: Payload,
}

impl Audience {
    const USUAL: Self = Self { deflate: false, payload: Payload::USUAL };
}

/// What a closed loop found in the time that was measured.
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) cpu_ns: f64,
    pub(super) deliveries: f64,
    /// Bytes that the subscribers received, and in how many receives.
    pub(super) bytes: f64,
    receives: f64,
    bytes_per_send: f64,
    pub(super) lost: f64,
    pub(super) warnings: Vec<String>,
}

impl Measured {
    /// The server's CPU for one delivery.
    pub(super) fn cpu_ns_each(&self) -> f64 {
        self.cpu_ns / self.deliveries
    }
}

/// Publishes to `audience` as long as fewer than `window` are not yet everywhere.
pub(super) fn measure(
    running: &Running,
    load: &Load,
    window: u64,
    audience: Audience,
) -> io::Result<Measured> {
    let mut hall = Hall::open(running, load, audience)?;
    let started = Instant::now();
    let mut measured: Option<(Meter, Seen, Option<Sends>)> = None;
    loop {
        let missing = window - hall.outstanding();
        hall.publish(missing)?;
        hall.hear(|_, _| {})?;
        match &measured {
            None if started.elapsed() >= load.warm_up() => {
                let sends = running.sends_counted();
                measured = Some((Meter::start(running)?, hall.seen, sends));
            }
            Some((meter, before, sends)) if meter.started.elapsed() >= load.measured() => {
                let (seconds, cpu_ns) = meter.stop(running)?;
                let now = hall.seen;
                let bytes_per_send = Sends::bytes_each(*sends, running.sends_counted());
                hall.drain()?;
                return Ok(Measured {
                    seconds,
                    cpu_ns,
                    deliveries: (now.deliveries - before.deliveries) as f64,
                    bytes: (now.bytes - before.bytes) as f64,
                    receives: (now.receives - before.receives) as f64,
                    bytes_per_send,
                    lost: hall.seen.lost as f64,
                    warnings: hall.warnings(),
                });
            }
            _ => {}
        }
    }
}

/// Publishes on schedule.
pub(super) fn fixed_rate(running: &Running, load: &Load) -> io::Result<Outcome> {
    let mut hall = Hall::open(running, load, Audience::USUAL)?;
    let between = Duration::from_secs_f64(1.0 / load.rate as f64);
    let whole = load.warm_up() + load.measured();
    let first_measured = (load.warm_up().as_secs_f64() * load.rate as f64) as u64;
    let mut each = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let mut last = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let mut meter: Option<(Meter, Seen)> = None;
    let mut stopped = None;
    let started = Instant::now();
    let end = whole + DRAIN_TIME_MAX;
    loop {
        let elapsed = started.elapsed();
        if meter.is_none() && elapsed >= load.warm_up() {
            meter = Some((Meter::start(running)?, hall.seen));
        }
        if let (None, Some((meter, before))) = (&stopped, &meter)
            && elapsed >= whole
        {
            stopped = Some((meter.stop(running)?, hall.seen.deliveries - before.deliveries));
        }
        if elapsed < whole {
            let due = elapsed.div_duration_f64(between) as u64 + 1;
            hall.publish(due - hall.published())?;
        } else if hall.outstanding() == 0 || elapsed > end {
            break;
        }
        hall.hear(|message, is_last| {
            if message >= first_measured {
                let due = between * message as u32;
                let late = started.elapsed().saturating_sub(due).as_nanos() as u64;
                let _ = each.record(late.max(1));
                if is_last {
                    let _ = last.record(late.max(1));
                }
            }
        })?;
    }
    let ((_, cpu_ns), deliveries) = stopped.ok_or_else(|| io::Error::other("nothing measured"))?;
    let micros = |histogram: &Histogram<u64>, quantile| {
        histogram.value_at_quantile(quantile) as f64 / 1000.0
    };
    let figures = vec![
        micros(&each, 0.5),
        micros(&each, 0.99),
        micros(&each, 0.999),
        micros(&last, 0.5),
        micros(&last, 0.99),
        cpu_ns / deliveries as f64,
        hall.seen.lost as f64,
    ];
    Ok(Outcome { figures, warnings: hall.warnings() })
}

/// Counts of everything that reached the subscribers.
#[derive(Clone, Copy, Default)]
struct Seen {
    deliveries: u64,
    bytes: u64,
    receives: u64,
    /// Deliveries that a gap notice announced as lost.
    lost: u64,
    /// Messages whose number was not the next one, among the checked subscribers.
    disorder: u64,
    acks: u64,
    errors: u64,
}

/// One publisher and its subscribers.
struct Hall {
    fleet: Fleet,
    requests: Requests,
    publisher: usize,
    /// Messages each subscriber has got or was told it lost.
    heard: Vec<u64>,
    /// For each publish, the subscribers that have not heard it.
    missing: Vec<u32>,
    /// Publishes that everybody has heard: a prefix, since each subscriber hears them in order.
    complete: u64,
    seen: Seen,
    first_error: Option<String>,
    pings: Vec<(usize, Vec<u8>)>,
}

impl Hall {
    fn open(running: &Running, load: &Load, audience: Audience) -> io::Result<Self> {
        let Audience { deflate, payload } = audience;
        let dialect = running.server.dialect();
        let mut greeting =
            Greeting { deflate, channel: Some(CHANNEL), ..Greeting::new(running.address, dialect) };
        let mut fleet = Fleet::new(load.sleep)?;
        fleet.open(&greeting, load.subscribers)?;
        greeting.channel = None;
        greeting.deflate = false;
        if dialect != Dialect::Ringcast {
            greeting.path = "/pub";
        }
        let publisher = fleet.open(&greeting, 1)?;
        // A peer counts a subscriber a moment after it has answered the upgrade.
        std::thread::sleep(Duration::from_millis(100));
        Ok(Self {
            fleet,
            requests: Requests { dialect, channel: CHANNEL, payload },
            publisher,
            heard: vec![0; load.subscribers],
            missing: Vec::new(),
            complete: 0,
            seen: Seen::default(),
            first_error: None,
            pings: Vec::new(),
        })
    }

    fn published(&self) -> u64 {
        self.missing.len() as u64
    }

    fn outstanding(&self) -> u64 {
        self.published() - self.complete
    }

    /// Publishes `count` more messages in one write.
    fn publish(&mut self, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let bytes_each = self.requests.payload.bytes + 128;
        let mut bytes = Vec::with_capacity(count as usize * bytes_each);
        for _ in 0..count {
            self.requests.write_publish(&mut bytes, NUMBER_FIRST + self.published());
            self.missing.push(self.heard.len() as u32);
        }
        self.fleet.send(self.publisher, &bytes)
    }

    /// Hears everyone once. `arrived` gets each delivery's publish, and whether it was the last.
    fn hear(&mut self, mut arrived: impl FnMut(u64, bool)) -> io::Result<()> {
        let Self { fleet, heard, missing, complete, seen, pings, first_error, .. } = self;
        let publisher = self.publisher;
        fleet.hear(|client, frames: &mut Frames<'_>, bytes| {
            if client == publisher {
                for frame in frames {
                    if frame.is_type(b"ack") {
                        seen.acks += 1;
                    } else {
                        rare(client, frame, pings, seen, first_error);
                    }
                }
                return;
            }
            seen.receives += 1;
            seen.bytes += bytes as u64;
            let next = &mut heard[client];
            let check = client % CHECKED_EVERY == 0 && self.requests.dialect != Dialect::Canned;
            for frame in frames {
                if frame.is_message() {
                    let check = check && !frame.is_compressed;
                    let payload_bytes = self.requests.payload.bytes;
                    if check
                        && number_in(frame.payload, payload_bytes) != Some(NUMBER_FIRST + *next)
                    {
                        seen.disorder += 1;
                    }
                    seen.deliveries += 1;
                    let is_last = hear_one(missing, complete, *next);
                    arrived(*next, is_last);
                    *next += 1;
                } else if frame.is_type(b"gap") {
                    let range = frame.number(b"\"from\":").zip(frame.number(b"\"to\":"));
                    let lost = range.map_or(0, |(from, to)| to + 1 - from);
                    seen.lost += lost;
                    for _ in 0..lost {
                        hear_one(missing, complete, *next);
                        *next += 1;
                    }
                } else {
                    rare(client, frame, pings, seen, first_error);
                }
            }
        })?;
        self.fleet.answer(&mut self.pings)?;
        if self.fleet.closed() > 0 {
            return Err(io::Error::other(format!(
                "the server closed {} connections ({})",
                self.fleet.closed(),
                self.first_error.as_deref().unwrap_or("no reason given")
            )));
        }
        Ok(())
    }

    /// Waits for what is outstanding.
    fn drain(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let acked = |hall: &Self| {
            hall.requests.dialect != Dialect::Ringcast || hall.seen.acks == hall.published()
        };
        while (self.outstanding() > 0 || !acked(self)) && started.elapsed() < DRAIN_TIME_MAX {
            self.hear(|_, _| {})?;
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let seen = &self.seen;
        if seen.lost > 0 {
            warnings.push(format!("{} deliveries LOST (announced by gap notices)", seen.lost));
        }
        if self.outstanding() > 0 {
            let missing: u64 = self.missing.iter().map(|count| u64::from(*count)).sum();
            warnings.push(format!("{missing} deliveries never came and were not announced"));
        }
        if seen.disorder > 0 {
            warnings.push(format!("{} messages out of sequence", seen.disorder));
        }
        if self.requests.dialect == Dialect::Ringcast && seen.acks != self.published() {
            warnings.push(format!("{} acks for {} publishes", seen.acks, self.published()));
        }
        if let Some(text) = &self.first_error {
            warnings.push(format!("{} frames nobody expected, first: {text}", seen.errors));
        }
        warnings
    }
}

/// One subscriber has heard one publish; returns whether it was the last to.
#[inline]
fn hear_one(missing: &mut [u32], complete: &mut u64, publish: u64) -> bool {
    // A server that sends more than was published is wrong, and is caught by its numbers.
    let Some(count) = missing.get_mut(publish as usize) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        *complete += 1;
    }
    is_last
}

/// A frame that is neither message nor notice.
fn rare(
    client: usize,
    frame: Frame<'_>,
    pings: &mut Vec<(usize, Vec<u8>)>,
    seen: &mut Seen,
    first_error: &mut Option<String>,
) {
    if frame.is_ping() {
        pings.push((client, frame.payload.to_vec()));
    } else {
        seen.errors += 1;
        first_error.get_or_insert_with(|| frame.text());
    }
}
