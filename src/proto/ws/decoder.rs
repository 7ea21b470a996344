//! Pulls messages out of the receive buffer.
//!
//! A frame that is whole in the buffer and is a whole message (nearly all are) is unmasked where
//! it lies and handed out as a slice of the buffer: nothing is copied, nothing allocated. Only
//! what is incomplete when the buffer ends is kept, in a box that exists as long as it is needed:
//! an idle decoder is 16 bytes.
//!
//! Frames become messages here; what a single header may say is [`super::frame`]'s rule, and what
//! a compressed message says is [`super::deflate`]'s.

use std::mem;

use super::close;
use super::frame::{FrameHeader, HEADER_BYTES_MAX, Opcode, Role};
use super::utf8::Utf8;
use super::violation::Violation;
use crate::simd;

/// What the peer said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message; it is valid UTF-8.
    Text(&'a mut [u8]),
    /// A binary message.
    Binary(&'a mut [u8]),
    /// A message to be inflated, of this kind: [`Opcode::Text`], which is still to be checked to
    /// be UTF-8, or [`Opcode::Binary`].
    Compressed(Opcode, &'a [u8]),
    /// A ping, to be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// A pong, perhaps unasked.
    Pong(&'a [u8]),
    /// The goodbye: its code and reason, when it has any. Nothing comes after it.
    Close(Option<(u16, &'a str)>),
}

/// One direction of one connection.
///
/// `partial` is present only while a header, a frame or a message is incomplete, or until the
/// call after the one that handed it out.
#[derive(Debug)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    role: Role,
    /// Whether messages may come compressed.
    may_compress: bool,
    state: State,
}

const _: () = assert!(size_of::<Decoder>() <= 16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer said goodbye; what follows is not looked at.
    Closed,
    Failed(Violation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
    Compressed { is_text: bool },
}

impl Kind {
    /// The message whose first frame has this header, if it is one of data.
    fn of(header: &FrameHeader) -> Option<Self> {
        let is_text = header.opcode == Opcode::Text;
        match header.opcode {
            Opcode::Text | Opcode::Binary if header.compressed => {
                Some(Self::Compressed { is_text })
            }
            Opcode::Text => Some(Self::Text),
            Opcode::Binary => Some(Self::Binary),
            _ => None,
        }
    }
}

/// What has come of something incomplete.
///
/// A header is being collected, or a frame is being filled, never both.
#[derive(Debug, Default)]
struct Partial {
    /// The message of which `held` has the beginning: of a fragmented one, or of a frame that
    /// came in pieces.
    message: Option<Kind>,
    utf8: Utf8,
    held: Vec<u8>,
    frame: Option<Frame>,
    /// A control frame in pieces, which may come between the fragments of a message.
    control: Vec<u8>,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    delivered: Delivered,
}

/// The frame whose payload is coming in.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: FrameHeader,
    received: usize,
}

impl Frame {
    fn missing(&self) -> usize {
        self.header.payload_bytes as usize - self.received
    }
}

/// What the last event borrowed, to be freed by the next call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivered {
    #[default]
    Nothing,
    Message,
    Control,
}

/// The outcome of one step: an event of the input, or word that one lies in `Partial`.
enum Step<'i> {
    Borrowed(Event<'i>),
    HeldMessage(Kind),
    HeldControl(Opcode),
    Starved,
}

impl Decoder {
    /// A decoder of what the other end of `role` sends.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { partial: None, role, may_compress: false, state: State::Open }
    }

    /// The same, of somebody with whom compression was agreed on (RFC 7692).
    #[must_use]
    pub fn with_compression(role: Role) -> Self {
        Self { may_compress: true, ..Self::new(role) }
    }

    /// The next event. `input` moves past what was used; `None` means all of it was, and what
    /// was incomplete is kept inside. After a close frame the rest of the input is thrown away.
    ///
    /// `message_bytes_max` is held against what a header claims, before a byte is kept. A message
    /// that came compressed is to be held against it once more when it is inflated.
    ///
    /// # Errors
    /// The first rule of RFC 6455, or of RFC 7692, the peer broke. The decoder stays failed: the same again.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Event<'s>>, Violation> {
        match self.state {
            State::Open => {}
            // RFC 6455 5.5.1 and 1.4: data after the close frame is discarded.
            State::Closed => {
                self.partial = None;
                *input = &mut [];
                return Ok(None);
            }
            State::Failed(violation) => return Err(violation),
        }
        match self.step(input, message_bytes_max) {
            Ok(Step::Borrowed(event)) => Ok(Some(event)),
            Ok(Step::Starved) => Ok(None),
            Ok(Step::HeldMessage(kind)) => {
                let held = self.partial.as_mut().expect("holds the message").held.as_mut_slice();
                Ok(Some(match kind {
                    Kind::Text => Event::Text(held),
                    Kind::Binary => Event::Binary(held),
                    Kind::Compressed { is_text } => compressed_event(is_text, held),
                }))
            }
            Ok(Step::HeldControl(opcode)) => {
                let control = &self.partial.as_ref().expect("holds the control frame").control;
                control_event(opcode, control).map(Some)
            }
            Err(violation) => {
                self.state = State::Failed(violation);
                self.partial = None;
                Err(violation)
            }
        }
    }

    /// Bytes on the heap for what is incomplete, for the memory account.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.held.capacity() + partial.control.capacity()
        })
    }

    #[inline]
    fn step<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        message_bytes_max: usize,
    ) -> Result<Step<'i>, Violation> {
        loop {
            self.release_delivered();
            if input.is_empty() {
                return Ok(Step::Starved);
            }
            if self.partial.as_ref().is_none_or(|partial| partial.frame.is_none()) {
                let Some(header) = self.take_header(input)? else { return Ok(Step::Starved) };
                let message = self.check_sequence(&header, message_bytes_max)?;
                let is_alone = header.opcode.is_control() || (header.fin && message.is_none());
                if is_alone && header.payload_bytes <= input.len() as u64 {
                    let payload = take(input, header.payload_bytes as usize);
                    return self.whole(&header, payload).map(Step::Borrowed);
                }
                self.partial.get_or_insert_default().begin(header);
            }
            let partial = self.partial.as_mut().expect("a frame is begun");
            if let Some(step) = partial.fill(input, message_bytes_max)? {
                if matches!(step, Step::HeldControl(Opcode::Close)) {
                    close::parse_payload(&partial.control)?;
                    self.state = State::Closed;
                }
                return Ok(step);
            }
        }
    }

    /// A frame that is a message of its own and is all in the input.
    #[inline]
    fn whole<'i>(
        &mut self,
        header: &FrameHeader,
        payload: &'i mut [u8],
    ) -> Result<Event<'i>, Violation> {
        if let Some(key) = header.mask {
            simd::xor_mask(payload, key, 0);
        }
        match header.opcode {
            Opcode::Text | Opcode::Binary if header.compressed => {
                Ok(compressed_event(header.opcode == Opcode::Text, payload))
            }
            Opcode::Text => {
                // RFC 6455 8.1: text is UTF-8.
                if simdutf8::basic::from_utf8(payload).is_err() {
                    return Err(Violation::TextNotUtf8);
                }
                Ok(Event::Text(payload))
            }
            Opcode::Binary => Ok(Event::Binary(payload)),
            opcode => {
                let event = control_event(opcode, payload)?;
                if matches!(event, Event::Close(_)) {
                    self.state = State::Closed;
                }
                Ok(event)
            }
        }
    }

    /// The next header, or `None` after keeping what there is of it.
    #[inline]
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<FrameHeader>, Violation> {
        if self.partial.as_ref().is_none_or(|partial| partial.header_bytes == 0)
            && let Some((header, header_bytes)) =
                FrameHeader::parse_extended(input, self.role, self.may_compress)?
        {
            take(input, header_bytes);
            return Ok(Some(header));
        }
        self.collect_header(input)
    }

    #[cold]
    fn collect_header(&mut self, input: &mut &mut [u8]) -> Result<Option<FrameHeader>, Violation> {
        let partial = self.partial.get_or_insert_default();
        let kept = usize::from(partial.header_bytes);
        let bytes = (HEADER_BYTES_MAX - kept).min(input.len());
        partial.header[kept..kept + bytes].copy_from_slice(&input[..bytes]);
        let header = &partial.header[..kept + bytes];
        match FrameHeader::parse_extended(header, self.role, self.may_compress)? {
            Some((header, header_bytes)) => {
                partial.header_bytes = 0;
                take(input, header_bytes - kept);
                Ok(Some(header))
            }
            None => {
                partial.header_bytes = (kept + bytes) as u8;
                take(input, bytes);
                Ok(None)
            }
        }
    }

    /// Whether this frame may follow the ones before it; returns the message it would continue.
    #[inline]
    fn check_sequence(
        &self,
        header: &FrameHeader,
        message_bytes_max: usize,
    ) -> Result<Option<Kind>, Violation> {
        let (message, held) = match &self.partial {
            Some(partial) => (partial.message, partial.held.len()),
            None => (None, 0),
        };
        if header.opcode.is_control() {
            return Ok(message);
        }
        // RFC 6455 5.4: fragments of one message are not interleaved with another's.
        match (header.opcode, message) {
            (Opcode::Continuation, None) => return Err(Violation::ContinuationUnexpected),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::MessageInterleaved),
            _ => {}
        }
        // The top bit of a length is never set, so this sum cannot overflow.
        let bytes = header.payload_bytes + held as u64;
        if bytes > message_bytes_max as u64 {
            let kind = message.or_else(|| Kind::of(header));
            let is_compressed = matches!(kind, Some(Kind::Compressed { .. }));
            if !is_compressed || bytes > compressed_bytes_max(message_bytes_max) {
                return Err(Violation::MessageTooBig);
            }
        }
        Ok(message)
    }

    #[inline]
    fn release_delivered(&mut self) {
        if let Some(partial) = &mut self.partial
            && partial.release_delivered()
        {
            self.partial = None;
        }
    }
}

impl Partial {
    /// Frees what the last event borrowed; whether nothing incomplete is left.
    fn release_delivered(&mut self) -> bool {
        match mem::take(&mut self.delivered) {
            Delivered::Nothing => {}
            Delivered::Message => {
                self.message = None;
                self.held = Vec::new();
                self.utf8 = Utf8::default();
            }
            Delivered::Control => self.control = Vec::new(),
        }
        self.message.is_none() && self.frame.is_none() && self.header_bytes == 0
    }

    fn begin(&mut self, header: FrameHeader) {
        self.message = Kind::of(&header).or(self.message);
        self.frame = Some(Frame { header, received: 0 });
    }

    /// Moves payload from the input into the frame that is begun. Something to hand out when
    /// that completes a message, `None` when the frame or the input came to its end.
    fn fill<'i>(
        &mut self,
        input: &mut &mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Step<'i>>, Violation> {
        let mut frame = self.frame.expect("a frame is begun");
        let chunk = take(input, frame.missing().min(input.len()));
        if let Some(key) = frame.header.mask {
            simd::xor_mask(chunk, key, frame.received);
        }
        frame.received += chunk.len();
        let is_done = frame.missing() == 0;
        self.frame = if is_done { None } else { Some(frame) };

        if frame.header.opcode.is_control() {
            self.control.extend_from_slice(chunk);
            if !is_done {
                return Ok(None);
            }
            self.delivered = Delivered::Control;
            return Ok(Some(Step::HeldControl(frame.header.opcode)));
        }

        let kind = self.message.expect("a data frame belongs to a message");
        // RFC 6455 8.1: text is UTF-8, and fails at the first byte that cannot be.
        if kind == Kind::Text && self.utf8.feed(chunk).is_err() {
            return Err(Violation::TextNotUtf8);
        }
        let ceiling = if frame.header.fin {
            self.held.len() + chunk.len() + frame.missing()
        } else {
            message_bytes_max
        };
        hold(&mut self.held, chunk, ceiling);
        if !is_done || !frame.header.fin {
            return Ok(None);
        }
        if kind == Kind::Text && !self.utf8.is_complete() {
            return Err(Violation::TextNotUtf8);
        }
        self.delivered = Delivered::Message;
        Ok(Some(Step::HeldMessage(kind)))
    }
}

/// Appends bytes that have arrived. Room doubles, so that any number of fragments is cheap, but
/// never beyond `ceiling`, the most the message can become.
fn hold(held: &mut Vec<u8>, chunk: &[u8], ceiling: usize) {
    let needed = held.len() + chunk.len();
    if needed > held.capacity() {
        let room = (held.capacity() * 2).min(ceiling).max(needed);
        held.reserve_exact(room - held.len());
    }
    held.extend_from_slice(chunk);
}

/// Bytes that a message of `message_bytes_max` can take when it is compressed: one that cannot be
/// compressed becomes longer, by an eighth when each byte is coded with the nine bits that the
/// fixed code of RFC 1951 3.2.6 has for half of them.
#[cold]
fn compressed_bytes_max(message_bytes_max: usize) -> u64 {
    const FRAMING_BYTES: u64 = 64;
    let bytes = message_bytes_max as u64;
    bytes + bytes / 8 + FRAMING_BYTES
}

fn compressed_event(is_text: bool, payload: &[u8]) -> Event<'_> {
    Event::Compressed(if is_text { Opcode::Text } else { Opcode::Binary }, payload)
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        _ => close::parse_payload(payload).map(Event::Close),
    }
}

/// Splits the first `bytes` off the input.
#[inline]
fn take<'i>(input: &mut &'i mut [u8], bytes: usize) -> &'i mut [u8] {
    let (taken, rest) = mem::take(input).split_at_mut(bytes);
    *input = rest;
    taken
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
