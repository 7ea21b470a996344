//! What is asked of the servers, and what is written down about their answers.
//!
//! Each scenario opens its connections, warms up, then measures for a fixed time: the server's
//! CPU from its own accounting, and what the generator saw.

mod conflated;
mod deflate;
mod echo;
mod fanout;
mod handshake;
mod idle;
mod ingest;
mod resume;

use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::generator::{TEXT, write_masked};
use crate::servers::{Dialect, FloorSizes, Running, Server};

/// Bytes of a published payload, and of an echoed text.
pub(crate) const PAYLOAD_BYTES: usize = 128;

/// The first number published: eight digits, so that every request is as long as any other.
const NUMBER_FIRST: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// 64 connections, one message outstanding on each.
    #[value(name = "echo-1")]
    Echo1,
    /// 64 connections, 16 messages in one write, next when all 16 are back.
    #[value(name = "echo-16")]
    Echo16,
    /// Fan-out, one publish outstanding until every subscriber has it.
    #[value(name = "fanout-1")]
    Fanout1,
    /// Fan-out, 64 publishes outstanding.
    #[value(name = "fanout-64")]
    Fanout64,
    /// Fan-out of 1 KiB, one publish outstanding, to subscribers that take compressed messages, and
    /// then plain ones of the same size on the wire.
    #[value(name = "fanout-deflate")]
    FanoutDeflate,
    /// Fan-out at a fixed rate: latency.
    #[value(name = "fanout-rate")]
    FanoutRate,
    /// 50,000 updates of 500 keys each second to subscribers that get the newest every 100 ms.
    #[value(name = "fanout-conflated")]
    FanoutConflated,
    /// Everybody comes back at once for 200 messages, beside a client that was never away.
    Resume,
    /// Memory of connections that only stay.
    Idle,
    /// Connect, upgrade, close, again.
    Handshake,
    /// 16 publishers, 32 publishes outstanding each, nobody subscribed.
    #[value(name = "ingest-0")]
    Ingest0,
    /// The same with one subscriber.
    #[value(name = "ingest-1")]
    Ingest1,
}

/// Which way a figure should go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// One figure of a scenario.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    /// Whether servers are compared by it.
    pub(crate) compare: bool,
    pub(crate) digits: usize,
}

impl Column {
    const fn main(name: &'static str, better: Better) -> Self {
        Self { name, better, compare: true, digits: 0 }
    }

    const fn also(name: &'static str, digits: usize) -> Self {
        Self { name, better: Better::Lower, compare: false, digits }
    }
}

/// How hard and how long.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) idle_connections: usize,
    pub(crate) subscribers: usize,
    pub(crate) rate: u64,
    pub(crate) sleep: bool,
}

impl Load {
    pub(crate) fn full() -> Self {
        Self {
            seconds: 2.0,
            warm_up_seconds: 0.5,
            idle_connections: 15_000,
            subscribers: 1_000,
            rate: 100,
            sleep: false,
        }
    }

    pub(crate) fn quick() -> Self {
        Self { seconds: 0.7, warm_up_seconds: 0.3, ..Self::full() }
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_seconds)
    }

    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// What one run found.
#[derive(Default)]
pub(crate) struct Outcome {
    /// One value per column; not a number where this server has none.
    pub(crate) figures: Vec<f64>,
    pub(crate) warnings: Vec<String>,
}

impl Scenario {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo1 => "echo-1",
            Self::Echo16 => "echo-16",
            Self::Fanout1 => "fanout-1",
            Self::Fanout64 => "fanout-64",
            Self::FanoutDeflate => "fanout-deflate",
            Self::FanoutRate => "fanout-rate",
            Self::FanoutConflated => "fanout-conflated",
            Self::Resume => "resume",
            Self::Idle => "idle",
            Self::Handshake => "handshake",
            Self::Ingest0 => "ingest-0",
            Self::Ingest1 => "ingest-1",
        }
    }

    pub(crate) fn columns(self) -> Vec<Column> {
        match self {
            Self::Echo1 | Self::Echo16 => echo::columns(),
            Self::Fanout1 | Self::Fanout64 => fanout::columns(),
            Self::FanoutDeflate => deflate::columns(),
            Self::FanoutRate => fanout::rate_columns(),
            Self::FanoutConflated => conflated::columns(),
            Self::Resume => resume::columns(),
            Self::Idle => idle::columns(),
            Self::Handshake => handshake::columns(),
            Self::Ingest0 | Self::Ingest1 => ingest::columns(),
        }
    }

    /// Whether this server can be asked this.
    pub(crate) fn suits(self, server: Server) -> bool {
        match self {
            // Without acks and without a subscriber nobody could tell when a publish is done.
            Self::Ingest0 => server.dialect() != Dialect::Plain,
            // Nobody else here compresses, or keeps what was sent.
            Self::FanoutDeflate | Self::Resume => server.is_ringcast(),
            Self::FanoutConflated => conflated::suits(server.dialect()),
            // A held socket is the same under every driver.
            Self::Idle => server != Server::FloorEpoll,
            _ => true,
        }
    }

    /// The load in words.
    pub(crate) fn describe(self, load: &Load) -> String {
        let subscribers = load.subscribers;
        match self {
            Self::Echo1 => format!("{} connections, 1 message each way at a time", echo::COUNT),
            Self::Echo16 => format!("{} connections, 16 messages in one write", echo::COUNT),
            Self::Fanout1 => format!("{subscribers} subscribers, 1 publish outstanding"),
            Self::Fanout64 => format!("{subscribers} subscribers, 64 publishes outstanding"),
            Self::FanoutDeflate => {
                format!("{subscribers} subscribers, 1 publish of 1 KiB outstanding, compressed")
            }
            Self::FanoutRate => {
                format!("{subscribers} subscribers, {} publishes per second", load.rate)
            }
            Self::FanoutConflated => format!(
                "{subscribers} subscribers, {} updates per second of {} keys, conflated to 100 ms",
                conflated::RATE,
                conflated::KEYS
            ),
            Self::Resume => format!(
                "{subscribers} subscribers come back at once for {} messages each",
                resume::MESSAGES
            ),
            Self::Idle => format!("{} connections that only stay", load.idle_connections),
            Self::Handshake => format!("connect, upgrade, close; {} at once", handshake::AT_ONCE),
            Self::Ingest0 => format!("{} publishers, no subscriber", ingest::PUBLISHERS),
            Self::Ingest1 => format!("{} publishers, 1 subscriber", ingest::PUBLISHERS),
        }
    }

    /// What ringcast is told beside the usual.
    pub(crate) const fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::FanoutConflated => conflated::ENVIRONMENT,
            Self::Resume => resume::ENVIRONMENT,
            _ => &[],
        }
    }

    /// What a floor must know to stand in for a server here.
    pub(crate) fn floor_sizes(self) -> FloorSizes {
        let requests = Requests::new(Dialect::Canned, fanout::CHANNEL);
        let publish = FloorSizes {
            request_bytes: requests.publish_bytes(),
            answer_bytes: requests.ack_bytes(),
            deliver_bytes: requests.message_bytes(),
            idle: false,
        };
        match self {
            Self::Echo1 | Self::Echo16 | Self::Handshake => FloorSizes {
                request_bytes: PAYLOAD_BYTES + 8,
                answer_bytes: PAYLOAD_BYTES + 4,
                ..FloorSizes::default()
            },
            Self::Idle => FloorSizes { idle: true, ..publish },
            Self::Ingest0 => FloorSizes { deliver_bytes: 0, ..publish },
            _ => publish,
        }
    }

    /// Runs it once against a server that has just started.
    pub(crate) fn run(self, running: &Running, load: &Load) -> io::Result<Outcome> {
        match self {
            Self::Echo1 => echo::run(running, load, 1),
            Self::Echo16 => echo::run(running, load, 16),
            Self::Fanout1 => fanout::closed_loop(running, load, 1),
            Self::Fanout64 => fanout::closed_loop(running, load, 64),
            Self::FanoutDeflate => deflate::run(running, load),
            Self::FanoutRate => fanout::fixed_rate(running, load),
            Self::FanoutConflated => conflated::run(running, load),
            Self::Resume => resume::run(running, load),
            Self::Idle => idle::run(running, load),
            Self::Handshake => handshake::run(running, load),
            Self::Ingest0 => ingest::run(running, load, false),
            Self::Ingest1 => ingest::run(running, load, true),
        }
    }
}

/// The measured part of a run: wall time and the server's CPU time between two points.
struct Meter {
    started: Instant,
    cpu_ns: u64,
}

impl Meter {
    fn start(running: &Running) -> io::Result<Self> {
        Ok(Self { cpu_ns: running.cpu_ns()?, started: Instant::now() })
    }

    /// Seconds of wall time and nanoseconds of server CPU since the start.
    fn stop(&self, running: &Running) -> io::Result<(f64, f64)> {
        let seconds = self.started.elapsed().as_secs_f64();
        Ok((seconds, (running.cpu_ns()? - self.cpu_ns) as f64))
    }
}

/// Builds requests of one fixed length each.
#[derive(Clone, Copy)]
struct Requests {
    dialect: Dialect,
    channel: &'static str,
    payload: Payload,
}

/// What a message carries: an object with its number, `{"n":10000000,"pad":"..."}`.
#[derive(Clone, Copy)]
struct Payload {
    bytes: usize,
    /// Whether the padding is readings that differ from message to message, as devices send them;
    /// otherwise it is one letter.
    is_varied: bool,
}

impl Payload {
    const USUAL: Self = Self { bytes: PAYLOAD_BYTES, is_varied: false };

    /// The payload of message `number`, of exactly `bytes` bytes.
    fn write(self, number: u64) -> String {
        let mut text = format!(r#"{{"n":{number},"pad":""#);
        let pad_end = self.bytes - 2;
        if self.is_varied {
            let mut random = fastrand::Rng::with_seed(number);
            while text.len() < pad_end {
                let _ = write!(text, "t={:02}.{:02};", random.u8(15..30), random.u8(..100));
            }
            text.truncate(pad_end);
        }
        text.extend(std::iter::repeat_n('r', pad_end - text.len()));
        text.push_str("\"}");
        text
    }
}

impl Requests {
    const fn new(dialect: Dialect, channel: &'static str) -> Self {
        Self { dialect, channel, payload: Payload::USUAL }
    }

    /// Appends the publish that carries `number`.
    fn write_publish(&self, out: &mut Vec<u8>, number: u64) {
        let text = match self.dialect {
            Dialect::Plain => self.message_text(number),
            _ => format!(
                r#"{{"type":"publish","id":{number},"channel":"{}","payload":{}}}"#,
                self.channel,
                self.payload.write(number)
            ),
        };
        write_masked(out, TEXT, text.as_bytes());
    }

    /// The envelope a subscriber gets. A plain server is sent it ready-made, so that as many
    /// bytes reach the subscribers.
    fn message_text(&self, number: u64) -> String {
        format!(
            r#"{{"type":"message","channel":"{}","seq":{},"payload":{}}}"#,
            self.channel,
            100_000 + number % 900_000,
            self.payload.write(number)
        )
    }

    fn publish_bytes(&self) -> usize {
        let mut out = Vec::new();
        self.write_publish(&mut out, NUMBER_FIRST);
        out.len()
    }

    fn message_bytes(&self) -> usize {
        self.message_text(NUMBER_FIRST).len() + 4
    }

    fn ack_bytes(&self) -> usize {
        let channel = self.channel;
        format!(r#"{{"type":"ack","id":{NUMBER_FIRST},"channel":"{channel}","seq":100000}}"#).len()
            + 2
    }
}

/// The number in a message with so many bytes of payload: it stands at the end of the envelope, so its
/// place is known from there in every dialect.
fn number_in(message: &[u8], payload_bytes: usize) -> Option<u64> {
    let start = message.len().checked_sub(payload_bytes + 1)? + 5;
    let digits = message.get(start..start + 8)?;
    digits.iter().try_fold(0, |value, digit| {
        digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_found_from_the_end_of_the_envelope() {
        let mut requests = Requests::new(Dialect::Plain, "a-channel");
        for (bytes, is_varied) in [(PAYLOAD_BYTES, false), (1024, true), (1025, true)] {
            requests.payload = Payload { bytes, is_varied };
            assert_eq!(requests.payload.write(NUMBER_FIRST).len(), bytes);
            let text = requests.message_text(NUMBER_FIRST + 77);
            assert_eq!(number_in(text.as_bytes(), bytes), Some(NUMBER_FIRST + 77));
        }
    }
}
