//! One connection's whole life under a schedule that the input writes: bytes in pieces, time,
//! the peer's end, our own good-byes, answers and replies that leave late.

use std::time::Duration;

use super::{
    Afterwards, Answer, Conn, EndReason, Event, Expired, Listens, Page, Payload, Settings, Wanted,
};
use crate::fuzz::{Choices, cuts};
use crate::limits::{CONTROL_PAYLOAD_BYTES_MAX, POLL_TIMEOUT_MAX, REQUEST_HEAD_BYTES_MAX};
use crate::proto::dialect::Dialect;
use crate::proto::http::{Cors, Refusal, write_chunk, write_last_chunk};
use crate::proto::ws::deflate::{Codec, Deflater, Reach};
use crate::proto::ws::frame::{FrameHeader, Opcode, Role, write_masked};
use crate::proto::ws::{self, close};
use crate::time::Time;

mod said;

/// Memory of a decoder beside its message: its own state, and a control frame that grows.
const DECODER_BYTES_MAX: usize = 512;

/// Bytes of what a client said that its next messages may refer back to.
const WINDOW_BYTES_MAX: usize = 512;

/// Lives a life as the input says, then lets time pass until it is over.
///
/// # Panics
/// When the same bytes in other pieces make another life; when a life ends twice, not at all, or
/// says something after its end; when a deadline is not kept; when more is held than the bounds
/// allow; or when what was said is not one response, or frames that end with the good-bye.
pub fn connection(data: &[u8]) {
    let mut choices = Choices::new(data);
    let settings = settings(&mut choices);
    let seed = choices.byte();
    let mut life = Life::new(settings.clone(), seed);
    // Its twin gets the same bytes, one by one.
    let mut twin = Life::new(settings, seed);
    while !choices.is_empty() && !life.is_over {
        let step = Step::next(&mut choices);
        life.step(&step, choices.lengths());
        twin.step(&step, &[1]);
        assert_eq!(life.seen, twin.seen, "after {step:?}");
        assert_eq!(life.said.len(), twin.said.len(), "after {step:?}");
        // How long it lingers afterwards depends on how much comes at once.
        if life.ended.is_none() {
            assert_eq!(life.deadline(), twin.deadline(), "after {step:?}");
            assert_eq!(life.conn.is_open(), twin.conn.is_open(), "after {step:?}");
        } else if twin.is_over {
            break;
        }
    }
    life.let_time_pass();
    twin.let_time_pass();
    assert_eq!((&life.seen, &life.said), (&twin.seen, &twin.said));
    life.check_said();
}

fn settings(choices: &mut Choices<'_>) -> Settings {
    let bits = choices.byte();
    Settings {
        message_bytes_max: choices.one_of(&[200, 1_000, 4_000]),
        handshake_timeout: Duration::from_secs(5),
        body_bytes_max: 10_000,
        channels_per_client_max: 8,
        request_timeout: Duration::from_secs(8),
        cors: if bits & 2 == 0 { Cors::Off } else { Cors::Any },
        ping_interval: Duration::from_secs(choices.one_of(&[1, 25])),
        pong_timeout: Duration::from_secs(1),
        idle_timeout: choices.one_of(&[None, Some(60), Some(1)]).map(Duration::from_secs),
        close_timeout: Duration::from_secs(choices.one_of(&[3, 0])),
        compression: bits & 2 == 0,
        compression_window_bytes_max: if bits & 4 == 0 { WINDOW_BYTES_MAX } else { 0 },
        echo: bits & 1 == 0,
        pages: vec![Page { path: "/", content_type: "text/html; charset=utf-8", body: b"<p>hi" }],
    }
}

/// One step of a schedule.
#[derive(Debug)]
enum Step {
    /// These bytes arrive.
    Bytes(Vec<u8>),
    /// So much time passes, and then what is due is done.
    Time(Duration),
    /// The time is looked at, early perhaps.
    Look,
    /// The peer sends a FIN.
    EndOfStream,
    /// All that was said has left.
    Flushed,
    /// What was asked is answered.
    Answer,
    /// The server says good-bye.
    Close,
    /// Memory is short: what is incomplete is given up.
    Abandon,
    /// There is no room.
    TurnAway,
}

impl Step {
    fn next(choices: &mut Choices<'_>) -> Self {
        let raw = |choices: &mut Choices<'_>| {
            let count = usize::from(choices.byte());
            choices.bytes(count).to_vec()
        };
        let request = |path: &str, protocol: Option<&str>| {
            let mut out = Vec::new();
            let key = "dGhlIHNhbXBsZSBub25jZQ==";
            ws::handshake::write_request(&mut out, "example.org", path, key, protocol);
            out.truncate(out.len() - 2);
            out.extend_from_slice(
                b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
            );
            Self::Bytes(out)
        };
        let choice = choices.byte();
        match choice % 16 {
            0 | 1 => Self::Bytes(raw(choices)),
            2 => match choice >> 4 {
                0..8 => request("/ws", None),
                8..12 => request("/ws", Some(Dialect::Msgpack.name())),
                12..14 => request("/raw/a%2Fb", None),
                _ => request("/raw/a%2Fb?mode=sub", Some(Dialect::Raw.name())),
            },
            3 => request("/echo", None),
            4 => match choices.byte() % 8 {
                6 => Self::Bytes(listen_request("/sse?channel=a&channel=b&since=k3x9.7,-")),
                7 => Self::Bytes(listen_request("/poll?channel=a&timeout=3s")),
                0 => Self::Bytes(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec()),
                _ => Self::Bytes(publish_request(choices)),
            },
            5..=7 => {
                // A frame with any first byte, sound otherwise.
                let first = choices.byte();
                let key = [choices.byte(), 0, 7, 0xff];
                let mut payload = raw(choices).repeat(1 + usize::from(choices.byte() % 16));
                // What says that it is compressed is so every other time.
                if first & COMPRESSED != 0 && key[0] & 1 != 0 {
                    payload = compressed(&payload);
                }
                let mut out = Vec::new();
                write_masked(&mut out, Opcode::Text, &payload, key);
                out[0] = first;
                Self::Bytes(out)
            }
            8 => {
                let mut out = Vec::new();
                let payload = [&choices.word().to_be_bytes(), raw(choices).as_slice()].concat();
                let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_BYTES_MAX)];
                write_masked(&mut out, Opcode::Close, payload, [1, 2, 3, 4]);
                Self::Bytes(out)
            }
            9 | 10 => Self::Time(Duration::from_millis(u64::from(choices.word()))),
            11 => Self::Look,
            12 => Self::EndOfStream,
            13 => match choices.byte() % 2 {
                0 => Self::Flushed,
                _ => Self::Answer,
            },
            14 => Self::Close,
            _ => match choices.byte() % 2 {
                0 => Self::Abandon,
                _ => Self::TurnAway,
            },
        }
    }
}

fn listen_request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: example.org\r\n\r\n").into_bytes()
}

/// A request to publish, most of the time a sound one, and some of its body.
fn publish_request(choices: &mut Choices<'_>) -> Vec<u8> {
    let bits = choices.byte();
    let version = bits >> 7;
    let mut out = format!("POST /publish HTTP/1.{}\r\nHost: example.org\r\n", 1 - version);
    if bits & 1 == 0 {
        out.push_str("Content-Type: application/x-ndjson\r\n");
    }
    if bits & 2 == 0 {
        out.push_str("Expect: 100-continue\r\n");
    }
    if bits & 4 == 0 {
        out.push_str("Origin: https://app.example\r\n");
    }
    let count = usize::from(choices.byte());
    let body = choices.bytes(count).repeat(1 + usize::from(choices.byte() % 16));
    if bits & 8 == 0 {
        // As it is, or shorter or longer than it says.
        let length = (body.len() + usize::from(bits >> 4 & 3)).saturating_sub(1);
        return [format!("{out}Content-Length: {length}\r\n\r\n").as_bytes(), &body].concat();
    }
    let mut out = format!("{out}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(1 + usize::from(bits >> 2)) {
        write_chunk(&mut out, &[chunk]);
    }
    if bits & 16 == 0 {
        write_last_chunk(&mut out);
    }
    out
}

/// RFC 7692 6: the bit that says that a message is compressed.
const COMPRESSED: u8 = 0x40;

/// `message` as a client compresses it; one that does not become shorter is refused.
fn compressed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    if !Deflater::new(6).write_frame(&mut frame, Opcode::Text, message, Reach::Narrow) {
        return message.to_vec();
    }
    let parsed = FrameHeader::parse_extended(&frame, Role::Client, true);
    let (_, header_bytes) = parsed.expect("a sound header").expect("a whole header");
    frame.split_off(header_bytes)
}

/// What a connection told its server.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Opened { hub: bool, compression: Option<Reach> },
    Text(Vec<u8>),
    Msgpack(Vec<u8>),
    Payload { is_text: bool, bytes: Vec<u8> },
    Publishing,
    Listening(Listens, Vec<Wanted>),
    Object(Vec<u8>),
    ObjectTooLong,
    Handled,
    Ended(EndReason),
    Refused(Refusal),
}

/// A connection with its world: what it was fed, what it told, what it said.
struct Life {
    conn: Conn,
    settings: Settings,
    codec: Codec,
    now: Time,
    fed_bytes: usize,
    seen: Vec<Seen>,
    /// Everything it said to the peer.
    said: Vec<u8>,
    /// Bytes of it when its client's life ended.
    ended: Option<usize>,
    is_hub: Option<bool>,
    /// Objects to be published come, so many of which are not answered.
    unanswered: Option<u32>,
    /// It listens.
    listens: Option<Listens>,
    /// It was closed without a word.
    is_silenced: bool,
    is_shut: bool,
    /// The socket is closed.
    is_over: bool,
}

impl Life {
    fn new(settings: Settings, seed: u8) -> Self {
        let mut random = fastrand::Rng::with_seed(u64::from(seed));
        Self {
            conn: Conn::accepted(Time::START, &mut random),
            settings,
            codec: Codec::new(6),
            now: Time::START,
            fed_bytes: 0,
            seen: Vec::new(),
            said: Vec::new(),
            ended: None,
            is_hub: None,
            unanswered: None,
            listens: None,
            is_silenced: false,
            is_shut: false,
            is_over: false,
        }
    }

    fn deadline(&self) -> Time {
        self.conn.deadline(self.now, &self.settings)
    }

    fn step(&mut self, step: &Step, lengths: &[u8]) {
        if self.is_over {
            return;
        }
        match step {
            Step::Bytes(bytes) => {
                let mut bytes = bytes.clone();
                for piece in cuts(bytes.len(), lengths) {
                    self.receive(&mut bytes[piece]);
                }
            }
            Step::Time(duration) => {
                self.now = self.now + *duration;
                if self.deadline() <= self.now {
                    self.look();
                }
            }
            Step::Look => self.look(),
            Step::EndOfStream => {
                if let Some(reason) = self.conn.end_of_stream(self.now, &self.settings) {
                    self.is_silenced = true;
                    self.end(Seen::Ended(reason));
                }
            }
            Step::Flushed => self.flushed(),
            Step::Answer => self.answer(),
            Step::Close => {
                let Self { conn, said, settings, now, .. } = self;
                if conn.close(*now, close::GOING_AWAY, "bye", said, settings) {
                    self.is_silenced = self.is_hub.is_none() && self.listens.is_none();
                    self.end(Seen::Ended(EndReason::Drained));
                }
            }
            // The shard abandons only what is closing already.
            Step::Abandon if self.conn.is_closing() => {
                self.conn.abandon(self.now, &self.settings);
                self.is_shut = false;
                assert_eq!(self.conn.held_bytes(), 0);
            }
            // And turns away only who is not a client yet.
            Step::TurnAway if !self.conn.is_closing() && self.is_hub.is_none() => {
                let refusal = Refusal::Unavailable { retry_after_s: 5 };
                self.conn.turn_away(self.now, refusal, &mut self.said, &self.settings);
                self.end(Seen::Ended(EndReason::ServerFull));
            }
            Step::Abandon | Step::TurnAway => {}
        }
        self.check();
    }

    fn receive(&mut self, piece: &mut [u8]) {
        self.fed_bytes += piece.len();
        let mut input = piece;
        let Self { conn, settings, codec, now, said, .. } = self;
        let mut told = Vec::new();
        while let Some(event) = conn.receive(*now, &mut input, said, codec, settings) {
            told.push(match event {
                Event::Opened { hub, compression, .. } => Seen::Opened { hub, compression },
                Event::Text(text) => Seen::Text(text.to_vec()),
                Event::Msgpack(message) => Seen::Msgpack(message.to_vec()),
                Event::Payload(channel, payload) => {
                    assert_eq!(channel, "a/b");
                    let (is_text, bytes) = match payload {
                        Payload::Text(text) => (true, text.to_vec()),
                        Payload::Binary(bytes) => (false, bytes.to_vec()),
                    };
                    Seen::Payload { is_text, bytes }
                }
                Event::Publishing => Seen::Publishing,
                Event::Listening(listens, wanted, _) => Seen::Listening(listens, wanted),
                Event::Object(object) => Seen::Object(object.to_vec()),
                Event::ObjectTooLong => Seen::ObjectTooLong,
                Event::Handled => Seen::Handled,
                Event::Refused(refusal) => Seen::Refused(refusal),
                Event::Ending(reason) => Seen::Ended(reason),
            });
        }
        assert!(input.is_empty(), "all of the input is used up");
        assert_eq!(conn.heard(), *now, "any byte is life");
        for seen in told {
            self.hear(seen);
        }
        self.check();
    }

    fn hear(&mut self, seen: Seen) {
        assert_eq!(self.ended, None, "{seen:?} after the end");
        match seen {
            Seen::Opened { hub, compression } => {
                assert_eq!(self.is_hub.replace(hub), None, "opened once");
                assert!(self.settings.compression || compression.is_none());
                assert!(hub || self.settings.echo);
                self.seen.push(seen);
            }
            Seen::Text(ref text) | Seen::Payload { is_text: true, bytes: ref text } => {
                let dialect = self.conn.dialect();
                assert_eq!(dialect == Dialect::Json, matches!(seen, Seen::Text(_)));
                self.check_message(text);
                assert!(std::str::from_utf8(text).is_ok());
                self.seen.push(seen);
            }
            Seen::Msgpack(ref bytes) | Seen::Payload { ref bytes, .. } => {
                let dialect = self.conn.dialect();
                assert_eq!(dialect == Dialect::Msgpack, matches!(seen, Seen::Msgpack(_)));
                self.check_message(bytes);
                self.seen.push(seen);
            }
            Seen::Publishing => {
                assert_eq!(self.unanswered.replace(0), None, "begun once");
                assert_eq!(self.is_hub, None);
                self.seen.push(seen);
            }
            Seen::Listening(listens, ref wanted) => {
                assert_eq!(self.is_hub, None);
                assert!((1..=self.settings.channels_per_client_max).contains(&wanted.len()));
                assert_eq!(self.listens.replace(listens), None, "begun once");
                self.seen.push(seen);
            }
            Seen::Object(ref object) => {
                assert!(object.len() <= self.settings.message_bytes_max + 1);
                *self.unanswered.as_mut().expect("it has begun") += 1;
                self.seen.push(seen);
            }
            Seen::ObjectTooLong => {
                *self.unanswered.as_mut().expect("it has begun") += 1;
                self.seen.push(seen);
            }
            Seen::Handled => self.seen.push(seen),
            Seen::Refused(_) => {
                assert_eq!(self.is_hub, None);
                self.end(seen);
            }
            Seen::Ended(_) => self.end(seen),
        }
    }

    fn check_message(&self, message: &[u8]) {
        assert_eq!(self.is_hub, Some(true));
        assert!(message.len() <= self.settings.message_bytes_max);
        assert!(self.conn.raw_channel().is_none_or(|raw| raw.publishes));
    }

    /// Answers what was asked.
    fn answer(&mut self) {
        if self.conn.is_poll() {
            let Self { conn, said, settings, now, .. } = self;
            let reason = conn.answer_poll(*now, "k3x9.7", b"{},", said, settings);
            self.end(Seen::Ended(reason));
        }
        while self.ended.is_none() && self.unanswered.is_some_and(|count| count > 0) {
            let Self { conn, said, settings, now, .. } = self;
            let answer = Answer { status: 200, retry_after_s: None, object: b"{}" };
            let event = conn.answer(*now, &answer, said, settings);
            *self.unanswered.as_mut().expect("looked at above") -= 1;
            match event {
                None => {}
                Some(Event::Ending(reason)) => self.end(Seen::Ended(reason)),
                Some(Event::Refused(refusal)) => self.end(Seen::Refused(refusal)),
                Some(event) => panic!("{event:?} is no end"),
            }
        }
    }

    /// The client's life ends; what has been said so far were its last words.
    fn end(&mut self, seen: Seen) {
        assert_eq!(self.ended, None, "{seen:?} is a second end");
        self.seen.push(seen);
        self.ended = Some(self.said.len());
        assert!(self.conn.is_closing() || self.is_over);
    }

    /// What the shard does when a timer fires, which may be early.
    fn look(&mut self) {
        let deadline = self.deadline();
        let said_bytes = self.said.len();
        let expired = self.conn.expire(self.now, &mut self.said, &self.settings);
        match expired {
            Expired::Later(time) => {
                assert!(self.now < deadline, "what is due is done");
                assert_eq!(time, deadline);
                assert_eq!(self.said.len(), said_bytes);
            }
            Expired::Pinged(time) => {
                assert!(self.now >= deadline, "not before its time");
                assert!(self.said.len() > said_bytes && self.ended.is_none());
                assert_eq!(time, self.deadline(), "nothing that is due earlier is forgotten");
            }
            Expired::Answer(time) => {
                assert!(self.now >= deadline, "not before its time");
                assert_eq!((time, self.said.len()), (self.deadline(), said_bytes));
                assert!(self.conn.is_poll());
            }
            Expired::Ending(reason) => {
                assert!(self.now >= deadline, "not before its time");
                self.end(Seen::Ended(reason));
            }
            Expired::Close(reason) => {
                assert!(self.now >= deadline, "not before its time");
                self.is_over = true;
                assert_eq!(reason.is_some(), self.ended.is_none(), "it ends once");
                if let Some(reason) = reason {
                    self.end(Seen::Ended(reason));
                }
            }
        }
    }

    fn flushed(&mut self) {
        match self.conn.flushed() {
            Afterwards::Wait => {}
            Afterwards::Shutdown => {
                assert!(!std::mem::replace(&mut self.is_shut, true), "one FIN is enough");
                assert!(self.ended.is_some());
            }
            Afterwards::Close => {
                assert!(self.ended.is_some());
                self.is_over = true;
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.conn.is_closing() || self.is_over, self.ended.is_some());
        let is_told = self.is_hub.is_some() || self.listens == Some(Listens::Stream);
        assert_eq!(self.conn.is_open(), is_told && !self.conn.is_closing());
        if let Some(ended) = self.ended {
            assert_eq!(self.said.len(), ended, "nothing is said after the end");
        }
        let most = match self.is_hub {
            None => REQUEST_HEAD_BYTES_MAX.max(self.settings.message_bytes_max),
            Some(_) => self.settings.message_bytes_max,
        };
        // Vectors double, and neither bound nor claim makes them grow: bytes do.
        let most = (2 * self.fed_bytes).min(2 * most) + DECODER_BYTES_MAX;
        // What may be referred back to is what came inflated.
        let most = most + if self.settings.compression { WINDOW_BYTES_MAX } else { 0 };
        assert!(self.conn.held_bytes() <= most, "{} bytes are held", self.conn.held_bytes());
        let furthest = [
            self.settings.handshake_timeout,
            self.settings.request_timeout,
            self.settings.ping_interval * 11 / 10,
            self.settings.pong_timeout,
            self.settings.close_timeout,
            if self.listens.is_some() { POLL_TIMEOUT_MAX } else { Duration::ZERO },
        ];
        let furthest = furthest.into_iter().max().expect("some");
        assert!(self.deadline() <= self.now + furthest, "it is looked at again");
    }

    /// Nobody does anything any more: a ping, its timeout and a good-bye must end it.
    fn let_time_pass(&mut self) {
        if self.conn.is_stream() {
            // That would go on for ever.
            self.step(&Step::EndOfStream, &[]);
        }
        for _ in 0..4 {
            if self.is_over {
                break;
            }
            self.now = self.now.max(self.deadline());
            self.look();
            self.check();
        }
        assert!(self.is_over && self.ended.is_some(), "deadlines end every life");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_live_one_life_however_their_bytes_are_cut() {
        crate::fuzz::replay("connection", super::connection);
    }
}
