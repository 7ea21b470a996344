//! The second phase: WebSocket frames, compressed perhaps, that become messages.

use super::handshake::Service;
use crate::proto::ws::deflate::{Deflater, Inflater, Reach, Window};
use crate::proto::ws::extension::Agreement;
use crate::proto::ws::frame::{Opcode, Role, write_frame};
use crate::proto::ws::{Decoder, Event, Violation};

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) decoder: Decoder,
    /// What was agreed on about compression.
    agreement: Option<Agreement>,
    /// The end of what came compressed, if the next message may refer back to it.
    window: Option<Box<Window>>,
    pub(super) service: Service,
}

impl Open {
    pub(super) fn new(service: Service, agreement: Option<Agreement>) -> Self {
        let decoder = match agreement {
            Some(_) => Decoder::with_compression(Role::Server),
            None => Decoder::new(Role::Server),
        };
        Self { decoder, agreement, window: None, service }
    }

    /// Whether messages for the client may be compressed, and how.
    pub(super) fn reach(&self) -> Option<Reach> {
        self.agreement.map(|agreement| agreement.reach)
    }

    /// The next of what the client says, inflated.
    #[inline]
    pub(super) fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i mut [u8],
        inflater: &'s mut Inflater,
        message_bytes_max: usize,
    ) -> Result<Option<Event<'s>>, Violation> {
        match self.decoder.next(input, message_bytes_max)? {
            Some(Event::Compressed(opcode, compressed)) => {
                let window_bytes_max = self.agreement.map_or(0, |it| it.window_bytes_max());
                let window = &mut self.window;
                let before = window.as_ref().map_or([].as_slice(), |window| window.as_bytes());
                let message = inflater.inflate(before, compressed, message_bytes_max)?;
                if window_bytes_max > 0 {
                    let empty = || Box::new(Window::new(window_bytes_max));
                    window.get_or_insert_with(empty).push(message);
                }
                inflated(opcode, message).map(Some)
            }
            event => Ok(event),
        }
    }

    /// Forgets what is incomplete and what could be referred back to.
    pub(super) fn abandon(&mut self) {
        self.decoder = Decoder::new(Role::Server);
        self.window = None;
    }

    /// Bytes kept of what is incomplete, and of what may be referred back to.
    pub(super) fn held_bytes(&self) -> usize {
        self.decoder.held_bytes() + self.window_bytes()
    }

    /// Bytes of these that may be referred back to.
    pub(super) fn window_bytes(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.held_bytes())
    }
}

/// What a message says that came compressed.
fn inflated(opcode: Opcode, message: &mut [u8]) -> Result<Event<'_>, Violation> {
    if opcode == Opcode::Binary {
        return Ok(Event::Binary(message));
    }
    // RFC 6455 8.1, and RFC 7692 6.2: it is the message that is UTF-8.
    match simdutf8::basic::from_utf8(message) {
        Ok(_) => Ok(Event::Text(message)),
        Err(_) => Err(Violation::TextNotUtf8),
    }
}

/// Says `payload` back.
pub(super) fn echo(
    opcode: Opcode,
    payload: &[u8],
    replies: &mut Vec<u8>,
    compression: Option<(Reach, &mut Deflater)>,
) {
    let is_said = compression
        .is_some_and(|(reach, deflater)| deflater.write_frame(replies, opcode, payload, reach));
    if !is_said {
        write_frame(replies, opcode, payload);
    }
}
