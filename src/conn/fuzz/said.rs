//! What a connection said to its peer, checked once its life is over.

use super::{EndReason, Life, Listens, Seen};
use crate::proto::http::{Body, Framing, Piece, Refusal};
use crate::proto::ws::deflate::Inflater;
use crate::proto::ws::frame::{FrameHeader, Opcode, Role};
use crate::proto::ws::{self, Decoder, close};

impl Life {
    /// Everything it said is one response, or a handshake and frames up to the good-bye.
    pub(super) fn check_said(&mut self) {
        const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
        if self.said.starts_with(CONTINUE) {
            self.said.drain(..CONTINUE.len());
        }
        let mut slots = [httparse::EMPTY_HEADER; 16];
        if self.listens == Some(Listens::Stream) {
            // Frames follow, for the door to translate.
            return self.check_stream();
        }
        let mut response = httparse::Response::new(&mut slots);
        if self.said.is_empty() {
            assert_eq!(self.is_hub, None);
            return;
        }
        let parsed = response.parse(&self.said).expect("a response");
        let httparse::Status::Complete(head_bytes) = parsed else { panic!("a whole response") };
        assert_eq!(response.code == Some(101), self.is_hub.is_some());
        if self.is_hub.is_none() {
            let field = |name: &str| response.headers.iter().find(|it| it.name == name);
            let body = &self.said[head_bytes..];
            if field("Transfer-Encoding").is_some() {
                assert!(self.check_chunks(body.to_vec()) || self.is_silenced);
            } else if let Some(length) = field("Content-Length") {
                let length = std::str::from_utf8(length.value).expect("digits");
                let length: usize = length.parse().expect("digits");
                // HEAD is told the length of what GET would get.
                let is_head = response.code == Some(200) && body.is_empty();
                assert!(is_head || body.len() == length, "{} bytes of {length}", body.len());
            } else {
                // Answers to HTTP/1.0, or nothing to a preflight.
                assert!(matches!(response.code, Some(200 | 204)));
            }
            return;
        }
        let frames = self.said.split_off(head_bytes);
        let code = check_frames(frames);
        let Some(Seen::Ended(reason)) = self.seen.last() else { panic!("it has ended") };
        let expected: &[u16] = match reason {
            EndReason::PeerVanished | EndReason::PongTimeout => &[],
            EndReason::Drained => &[close::GOING_AWAY],
            EndReason::IdleTimeout => &[close::NORMAL],
            EndReason::Violation => &[close::PROTOCOL_ERROR, close::INVALID_PAYLOAD],
            EndReason::UnacceptableMessage => &[close::UNSUPPORTED_DATA, close::MESSAGE_TOO_BIG],
            EndReason::PeerClosed => {
                assert!(code.is_some_and(close::may_be_sent));
                return;
            }
            reason => panic!("{reason:?} ends no open connection here"),
        };
        assert!(code.map_or(expected.is_empty(), |code| expected.contains(&code)), "{code:?}");
    }

    /// A head, how soon to come back, and frames.
    fn check_stream(&mut self) {
        let head = b"retry: 2000\n\n";
        let at = self.said.windows(head.len()).position(|bytes| bytes == head);
        let frames = self.said.split_off(at.expect("a head") + head.len());
        assert!(self.said.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let code = check_frames(frames);
        assert!(code.is_none_or(|code| code == close::GOING_AWAY), "{code:?}");
    }

    /// Whether the chunks end; they are sound in any case, and every answer is a line.
    fn check_chunks(&self, mut body: Vec<u8>) -> bool {
        let mut input = body.as_mut_slice();
        let mut reader = Body::new(Framing::Chunked, u64::MAX, Refusal::BODY_TOO_LARGE);
        loop {
            match reader.next(&mut input, None).expect("chunks are sound") {
                Some(Piece::Data(data)) => {
                    assert!(data.starts_with(b"{") && data.ends_with(b"}\n"))
                }
                Some(Piece::End) => break,
                None => return false,
            }
        }
        assert!(input.is_empty(), "nothing follows the last chunk");
        true
    }
}

/// The code of the close frame that ends `frames`, if one does. All are whole and sound.
fn check_frames(mut frames: Vec<u8>) -> Option<u16> {
    let mut input = frames.as_mut_slice();
    let mut decoder = Decoder::with_compression(Role::Client);
    let mut inflater = Inflater::default();
    loop {
        let Some((header, header_bytes)) =
            FrameHeader::parse_extended(input, Role::Client, true).expect("a sound header")
        else {
            assert!(input.is_empty(), "the last frame is whole");
            return None;
        };
        let is_last = input.len() == header_bytes + header.payload_bytes as usize;
        match decoder.next(&mut input, usize::MAX).expect("frames are sound") {
            Some(ws::Event::Close(said)) => {
                assert!(is_last, "nothing follows the good-bye");
                return Some(said.expect("we always say why").0);
            }
            Some(ws::Event::Compressed(opcode, payload)) => {
                let message = inflater.inflate(b"", payload, usize::MAX >> 1).expect("sound, too");
                assert!(opcode == Opcode::Binary || std::str::from_utf8(message).is_ok());
            }
            Some(_) => assert_eq!(decoder.held_bytes(), 0),
            None => panic!("the last frame is whole"),
        }
    }
}
