//! The second phase: WebSocket frames, compressed perhaps, that become messages.

use super::RawChannel;
use super::handshake::Service;
use crate::proto::dialect::Dialect;
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
    /// What few clients need, at the price of one pointer for the others.
    extra: Option<Box<Extra>>,
    pub(super) service: Service,
    pub(super) dialect: Dialect,
}

#[derive(Debug, Default)]
struct Extra {
    /// The end of what came compressed, if the next message may refer back to it.
    window: Option<Window>,
    /// For [`Dialect::Raw`].
    channel: Option<RawChannel>,
}

/// What a client says.
pub(super) struct Said<'a> {
    pub(super) event: Event<'a>,
    /// Where bare payloads go, if they go anywhere.
    pub(super) channel: Option<&'a str>,
}

impl Open {
    pub(super) fn new(
        service: Service,
        dialect: Dialect,
        channel: Option<RawChannel>,
        agreement: Option<Agreement>,
    ) -> Self {
        let decoder = match agreement {
            Some(_) => Decoder::with_compression(Role::Server),
            None => Decoder::new(Role::Server),
        };
        let extra = channel.map(|it| Box::new(Extra { window: None, channel: Some(it) }));
        Self { decoder, agreement, extra, service, dialect }
    }

    /// Whether messages for the client may be compressed, and how.
    pub(super) fn reach(&self) -> Option<Reach> {
        self.agreement.map(|agreement| agreement.reach)
    }

    /// For [`Dialect::Raw`].
    pub(super) fn channel(&self) -> Option<&RawChannel> {
        self.extra.as_ref()?.channel.as_ref()
    }

    /// The next of what the client says, inflated.
    #[inline]
    pub(super) fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i mut [u8],
        inflater: &'s mut Inflater,
        message_bytes_max: usize,
    ) -> Result<Option<Said<'s>>, Violation> {
        let event = match self.decoder.next(input, message_bytes_max)? {
            Some(Event::Compressed(opcode, compressed)) => {
                let window_bytes_max = self.agreement.map_or(0, |it| it.window_bytes_max());
                let window = self.extra.as_ref().and_then(|extra| extra.window.as_ref());
                let before = window.map_or([].as_slice(), |window| window.as_bytes());
                let message = inflater.inflate(before, compressed, message_bytes_max)?;
                if window_bytes_max > 0 {
                    let window = &mut self.extra.get_or_insert_default().window;
                    window.get_or_insert_with(|| Window::new(window_bytes_max)).push(message);
                }
                Some(inflated(opcode, message)?)
            }
            event => event,
        };
        let channel = self.extra.as_ref().and_then(|extra| extra.channel.as_ref());
        let channel = channel.filter(|raw| raw.publishes).map(|raw| &*raw.channel);
        Ok(event.map(|event| Said { event, channel }))
    }

    /// Forgets what is incomplete and what could be referred back to.
    pub(super) fn abandon(&mut self) {
        self.decoder = Decoder::new(Role::Server);
        if let Some(extra) = &mut self.extra {
            extra.window = None;
        }
    }

    /// Bytes kept of what is incomplete, and of what may be referred back to.
    pub(super) fn held_bytes(&self) -> usize {
        self.decoder.held_bytes() + self.window_bytes()
    }

    /// Bytes of these that may be referred back to.
    pub(super) fn window_bytes(&self) -> usize {
        let window = self.extra.as_ref().and_then(|extra| extra.window.as_ref());
        window.map_or(0, Window::held_bytes)
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
