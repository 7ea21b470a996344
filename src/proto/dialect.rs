//! The dialects of the protocol, one subprotocol each, and how what is said in JSON is said in the
//! others.
//!
//! Everything the server says is an object of `ringcast.json.v1` in a text frame. In
//! `ringcast.msgpack.v1` it is the same object as MessagePack in a binary frame. In
//! `ringcast.raw.v1` of a message only the payload is left, and nothing of anything else. Frames that
//! are no text, pongs and good-byes, are the same in all of them.

use super::msgpack::{self, binary};
use super::ws::frame::{self, FrameHeader, Opcode, Role};
use super::{json, ws};

/// How a client speaks and is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Text frames, one JSON object each.
    #[default]
    Json,
    /// Binary frames, one MessagePack map each.
    Msgpack,
    /// Bare payloads of one channel: JSON in text frames, bytes in binary ones.
    Raw,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Json, Self::Msgpack, Self::Raw];

    /// The name of its subprotocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "ringcast.json.v1",
            Self::Msgpack => "ringcast.msgpack.v1",
            Self::Raw => "ringcast.raw.v1",
        }
    }

    /// Appends the frame of a message, given as the object that it is in JSON.
    ///
    /// # Panics
    /// When that is not one of our own messages.
    pub fn write_message(self, out: &mut Vec<u8>, object: &[u8]) {
        match self {
            Self::Json => frame::write_frame(out, Opcode::Text, object),
            Self::Msgpack => write_msgpack(out, object),
            Self::Raw => write_payload(out, payload_of(object)),
        }
    }

    /// Says again what `frames`, whole ones, say from the byte `from` on: replies, and good-byes.
    ///
    /// # Panics
    /// When that is not what a server says in JSON.
    #[inline]
    pub fn translate_replies(self, frames: &mut Vec<u8>, from: usize) {
        if self != Self::Json && frames.len() > from {
            self.retell(frames, from);
        }
    }

    fn retell(self, frames: &mut Vec<u8>, from: usize) {
        let said = frames.split_off(from);
        for Frame { opcode, whole, payload } in self::frames(&said) {
            match (opcode, self) {
                (Opcode::Text, Self::Msgpack) => write_msgpack(frames, payload),
                (Opcode::Text, _) => {}
                _ => frames.extend_from_slice(whole),
            }
        }
    }
}

fn write_msgpack(out: &mut Vec<u8>, object: &[u8]) {
    frame::write_frame_with(out, Opcode::Binary, |body| {
        msgpack::from_json(object, body).expect("what the server says is JSON");
    });
}

fn write_payload(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    let mut is_binary = false;
    frame::write_frame_with(out, Opcode::Binary, |body| {
        is_binary = binary::read_bin(payload, body);
    });
    if !is_binary {
        out.truncate(start);
        frame::write_frame(out, Opcode::Text, payload);
    }
}

/// The payload of a message, as it was published.
///
/// # Panics
/// When `object` is not one of our own messages.
#[must_use]
pub fn payload_of(object: &[u8]) -> &[u8] {
    let mut members = json::members(object).expect("a message is an object").flatten();
    members.find(|member| member.is_named("payload")).expect("a message has a payload").value
}

/// A frame as a server sends it.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it is for.
    pub opcode: Opcode,
    /// All of it.
    pub whole: &'a [u8],
    /// What is behind its header.
    pub payload: &'a [u8],
}

/// The frames that a server has written back to back.
///
/// # Panics
/// When they are not whole.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed: Result<_, ws::Violation> = FrameHeader::parse(rest, Role::Client);
        let (header, header_bytes) = parsed.ok().flatten().expect("our own frames are sound");
        let (whole, behind) = rest.split_at(header_bytes + header.payload_bytes as usize);
        rest = behind;
        Some(Frame { opcode: header.opcode, whole, payload: &whole[header_bytes..] })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envelope;
    use crate::proto::ws::close;

    fn message(payload: &str) -> Vec<u8> {
        let mut out = Vec::new();
        envelope::message(&mut out, &envelope::message_prefix("a \"b\""), 7, payload.as_bytes());
        frames(&out).next().expect("a frame").payload.to_vec()
    }

    /// The only frame of a message in `dialect`.
    fn said(dialect: Dialect, payload: &str) -> (Opcode, Vec<u8>) {
        let mut out = b"\x8a\x00".to_vec();
        dialect.write_message(&mut out, &message(payload));
        let frames: Vec<_> = frames(&out).collect();
        assert_eq!((frames.len(), frames[0].opcode), (2, Opcode::Pong));
        (frames[1].opcode, frames[1].payload.to_vec())
    }

    #[test]
    fn a_message_is_the_same_object_in_msgpack() {
        for payload in
            ["1", "{\"a\":[1e400,{\"$bin\":\"AAE=\"}]}", &format!("\"{}\"", "x".repeat(70_000))]
        {
            let (opcode, body) = said(Dialect::Msgpack, payload);
            assert_eq!(opcode, Opcode::Binary);
            let mut text = Vec::new();
            msgpack::to_json(&body, &mut text, usize::MAX).unwrap();
            assert_eq!(text, message(payload));
        }
        // The payload of the deepest message, in a reply that holds it in a list.
        let deepest = format!("{}{}", "[".repeat(128), "]".repeat(128));
        let history = format!("{{\"messages\":[{{\"payload\":{deepest}}}]}}");
        let mut out = Vec::new();
        write_msgpack(&mut out, history.as_bytes());
        assert!(!out.is_empty());
    }

    #[test]
    fn a_raw_message_is_its_payload_as_it_was_published() {
        for payload in ["1", "\"payload\"", "[ 1 ]", "{\"payload\":{\"a\":1}}", "{\"$bin\":\"A\"}"]
        {
            assert_eq!(said(Dialect::Raw, payload), (Opcode::Text, payload.into()), "{payload}");
        }
        for (payload, bytes) in
            [("{\"$bin\":\"\"}", &b""[..]), ("{ \"$bin\" : \"AAH/\" }", b"\0\x01\xff")]
        {
            assert_eq!(said(Dialect::Raw, payload), (Opcode::Binary, bytes.into()), "{payload}");
        }
        let nested = "[{\"$bin\":\"AAH/\"}]";
        assert_eq!(said(Dialect::Raw, nested), (Opcode::Text, nested.into()));
        let ext = "{\"$ext\":[5,\"AAH/\"]}";
        assert_eq!(said(Dialect::Raw, ext), (Opcode::Text, ext.into()));
    }

    /// What the server says to a client beside messages.
    fn replies() -> Vec<u8> {
        let mut out = b"kept".to_vec();
        envelope::pong(&mut out, Some(b"18446744073709551616"), Some(b"1e400"));
        frame::write_frame(&mut out, Opcode::Pong, b"{}");
        envelope::gap(&mut out, "orders", 125, u64::MAX, "slow_consumer");
        envelope::goaway(&mut out, 4210);
        close::write_close(&mut out, 1001, "bye");
        out
    }

    #[test]
    fn replies_are_the_same_objects_in_msgpack_and_control_frames_are_left_alone() {
        let before = replies();
        let mut after = before.clone();
        Dialect::Msgpack.translate_replies(&mut after, 4);
        assert_eq!(&after[..4], b"kept");
        let (before, after) = (frames(&before[4..]), frames(&after[4..]));
        let mut count = 0;
        for (json, msgpack) in before.zip(after) {
            count += 1;
            if json.opcode != Opcode::Text {
                assert_eq!(json.whole, msgpack.whole);
                continue;
            }
            let mut text = Vec::new();
            msgpack::to_json(msgpack.payload, &mut text, usize::MAX).unwrap();
            assert_eq!((msgpack.opcode, text.as_slice()), (Opcode::Binary, json.payload));
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn a_raw_client_hears_no_replies_but_pongs_and_good_byes() {
        let mut out = replies();
        Dialect::Raw.translate_replies(&mut out, 4);
        let opcodes: Vec<_> = frames(&out[4..]).map(|frame| frame.opcode).collect();
        assert_eq!(opcodes, [Opcode::Pong, Opcode::Close]);
    }

    #[test]
    fn json_is_said_as_it_is() {
        let mut out = replies();
        Dialect::Json.translate_replies(&mut out, 4);
        assert_eq!(out, replies());
        assert_eq!(said(Dialect::Json, "[1]"), (Opcode::Text, message("[1]")));
    }
}
