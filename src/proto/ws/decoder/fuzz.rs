//! A stream of frames: cut anywhere it means the same, and tungstenite agrees.

use std::io::{self, Cursor, Read, Write};

use tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::{Decoder, Event, Partial, Violation, compressed_bytes_max};
use crate::fuzz::{Choices, cuts};
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;
use crate::proto::ws::close;
use crate::proto::ws::frame::{HEADER_BYTES_MAX, Opcode, Role};

/// What a stream said, up to its end.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Compressed(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => {
                assert!(std::str::from_utf8(text).is_ok(), "text is UTF-8");
                Self::Text(text.to_vec())
            }
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Compressed(opcode, payload) => Self::Compressed(opcode, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => Self::Close(close.map(|(code, text)| (code, text.to_owned()))),
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Inside a frame, a message, or between two.
    Starved,
    /// With a close frame.
    Closed,
    /// Against a rule: ours names it.
    Broke(Option<Violation>),
}

/// Reads a stream in the pieces that the input says, and in one.
///
/// # Panics
/// When the pieces mean something else than the whole, when tungstenite disagrees in anything but
/// what [`agree`] lists, or when more is held than was sent.
pub fn frames(data: &[u8]) {
    let mut choices = Choices::new(data);
    let message_bytes_max = choices.one_of(&[200, 1_000, 4_000]);
    let lengths = choices.lengths();
    let stream = choices.remaining();

    let ours = read_all_ways(stream, Decoder::new, lengths, message_bytes_max);
    // With compression only what the other bit says is different.
    let compressed = read_all_ways(stream, Decoder::with_compression, lengths, message_bytes_max);
    if ours.1 != Ended::Broke(Some(Violation::ReservedBitSet)) {
        assert_eq!(compressed, ours);
    }
    agree(&ours, stream, TheirRole::Server, message_bytes_max);

    // The other end's rule about masks; tungstenite has it too.
    let ours = read(stream, Decoder::new(Role::Client), lengths, message_bytes_max);
    agree(&ours, stream, TheirRole::Client, message_bytes_max);
}

/// What a server's decoder makes of `stream`, however it is cut.
fn read_all_ways(
    stream: &[u8],
    decoder: fn(Role) -> Decoder,
    lengths: &[u8],
    max: usize,
) -> (Vec<Said>, Ended) {
    let whole = read(stream, decoder(Role::Server), &[], max);
    let cut = read(stream, decoder(Role::Server), lengths, max);
    assert_eq!(cut, whole, "in pieces of {lengths:?}");
    let single = read(stream, decoder(Role::Server), &[1], max);
    assert_eq!(single, whole, "byte by byte");
    whole
}

/// What `decoder` makes of `stream`.
fn read(stream: &[u8], mut decoder: Decoder, lengths: &[u8], max: usize) -> (Vec<Said>, Ended) {
    let mut said = Vec::new();
    let mut stream = stream.to_vec();
    let most = compressed_bytes_max(max) as usize;
    for piece in cuts(stream.len(), lengths) {
        let fed = piece.end;
        let mut input = &mut stream[piece];
        loop {
            match decoder.next(&mut input, max) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    let event = Said::from(event);
                    let is_close = matches!(event, Said::Close(_));
                    said.push(event);
                    if is_close {
                        assert_eq!(decoder.next(&mut input, max), Ok(None));
                        assert!(input.is_empty(), "the rest is thrown away");
                        assert_eq!(decoder.held_bytes(), 0);
                        return (said, Ended::Closed);
                    }
                }
                Err(violation) => {
                    assert_eq!(decoder.next(&mut input, max), Err(violation), "it stays failed");
                    assert_eq!(decoder.held_bytes(), 0);
                    return (said, Ended::Broke(Some(violation)));
                }
            }
        }
        assert!(input.is_empty(), "None means that the input is used up");
        let fixed = size_of::<Partial>() + 2 * CONTROL_PAYLOAD_BYTES_MAX;
        assert!(decoder.held_bytes() <= fixed + (2 * fed).min(most), "{fed} bytes were sent");
    }
    (said, Ended::Starved)
}

/// Holds `ours` against what tungstenite makes of the same stream. They differ on purpose in this:
///
/// - A length that is not in its shortest form breaks a rule here (RFC 6455 5.2); tungstenite
///   reads it.
/// - Here a rule counts as soon as the bytes show it is broken; tungstenite looks at whole frames.
///   So where ours is broken and theirs still waits, theirs is given the rest of its frame.
/// - A close code that must not be sent breaks a rule here; tungstenite reports 1002 instead. It
///   also takes 1014 for such a code, which was registered later.
fn agree(ours: &(Vec<Said>, Ended), stream: &[u8], role: TheirRole, max: usize) {
    let (said, ended) = ours;
    let theirs = match ended {
        Ended::Broke(_) => {
            // A header, a payload, and a frame that no rule allows behind it.
            let rest = vec![0; HEADER_BYTES_MAX + max + 2];
            read_theirs(&[stream, &rest].concat(), role, max)
        }
        Ended::Starved | Ended::Closed => read_theirs(stream, role, max),
    };
    let next = theirs.0.get(said.len());
    let is_long_form = match ended {
        Ended::Broke(Some(Violation::LengthNotMinimal)) => true,
        // Said before the length itself is there: a short control frame in the long form.
        Ended::Broke(Some(Violation::ControlFrameTooLong)) => {
            matches!(next, Some(Said::Ping(_) | Said::Pong(_) | Said::Close(_)))
        }
        _ => false,
    };
    if is_long_form {
        assert_eq!(theirs.0.get(..said.len()), Some(&said[..]), "what came before");
        return;
    }
    let replaced = || Said::Close(Some((close::PROTOCOL_ERROR, "Protocol violation".into())));
    let (mut theirs, their_end) = theirs;
    match (ended, their_end) {
        (Ended::Broke(Some(Violation::CloseCodeInvalid)), Ended::Closed) => {
            assert_eq!(theirs.pop(), Some(replaced()));
        }
        (Ended::Broke(_), Ended::Broke(_)) | (Ended::Starved, Ended::Starved) => {}
        (Ended::Closed, Ended::Closed) => {
            let is_1014 = matches!(said.last(), Some(Said::Close(Some((1014, _)))));
            if is_1014 {
                assert_eq!(theirs.pop(), Some(replaced()));
                assert_eq!(said[..said.len() - 1], theirs);
                return;
            }
        }
        _ => panic!("ours: {ours:?}\ntheirs: {theirs:?} {their_end:?}"),
    }
    assert_eq!(*said, theirs);
}

/// What tungstenite makes of `stream`.
fn read_theirs(stream: &[u8], role: TheirRole, max: usize) -> (Vec<Said>, Ended) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .max_message_size(Some(max))
        .max_frame_size(Some(max));
    let mut socket = WebSocket::from_raw_socket(Deaf(Cursor::new(stream)), role, Some(config));
    let mut said = Vec::new();
    loop {
        said.push(match socket.read() {
            Ok(Message::Text(text)) => Said::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Said::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Said::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Said::Pong(payload.to_vec()),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (close.code.into(), close.reason.to_string()));
                said.push(Said::Close(close));
                return (said, Ended::Closed);
            }
            Ok(Message::Frame(_)) => unreachable!("raw frames are only written"),
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (said, Ended::Starved),
            Err(_) => return (said, Ended::Broke(None)),
        });
    }
}

/// A stream that is read from, and takes any answer.
struct Deaf<'a>(Cursor<&'a [u8]>);

impl Read for Deaf<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Deaf<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_mean_what_tungstenite_makes_of_them() {
        crate::fuzz::replay("frames", super::frames);
    }
}
