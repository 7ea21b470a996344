//! The last phase: what was to be said has been written; the peer may have its last words.

use super::Afterwards;
use crate::limits::LINGER_BYTES_MAX;
use crate::proto::ws::{Decoder, Event};
use crate::time::Time;

/// What an ending connection waits for, and until when.
#[derive(Debug)]
pub(super) struct Closing {
    until: Time,
    awaited: Awaited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Nothing: when our last words have left, all is done.
    Nothing,
    /// The peer's close frame, after ours (RFC 6455 7.1.2).
    CloseFrame,
    /// The peer's FIN. What it still sends is thrown away, up to a bound: closing a socket with
    /// unread bytes would send a reset, which can overtake our last words.
    EndOfStream {
        /// Whether our FIN has been asked for.
        shut: bool,
        thrown_away: u32,
    },
}

impl Closing {
    /// Both sides have said good-bye, or the peer has ended.
    pub(super) const fn done(until: Time) -> Self {
        Self { until, awaited: Awaited::Nothing }
    }

    /// We have said good-bye; the peer answers.
    pub(super) const fn handshake(until: Time) -> Self {
        Self { until, awaited: Awaited::CloseFrame }
    }

    /// We have said our last words to a peer that may go on talking.
    pub(super) const fn linger(until: Time) -> Self {
        Self { until, awaited: Awaited::EndOfStream { shut: false, thrown_away: 0 } }
    }

    /// Throws `input` away, except for the close frame that is waited for.
    pub(super) fn receive(
        &mut self,
        input: &mut &mut [u8],
        decoder: Option<&mut Decoder>,
        message_bytes_max: usize,
    ) {
        match &mut self.awaited {
            Awaited::Nothing => {}
            Awaited::EndOfStream { thrown_away, .. } => {
                *thrown_away = thrown_away.saturating_add(input.len() as u32);
                if *thrown_away as usize > LINGER_BYTES_MAX {
                    self.awaited = Awaited::Nothing;
                }
            }
            Awaited::CloseFrame => {
                let decoder = decoder.expect("only an open connection says good-bye with a frame");
                loop {
                    match decoder.next(input, message_bytes_max) {
                        Ok(None) => return,
                        Ok(Some(Event::Close(_))) | Err(_) => {
                            self.awaited = Awaited::Nothing;
                            break;
                        }
                        Ok(Some(_)) => {}
                    }
                }
            }
        }
        *input = &mut [];
    }

    /// The peer has ended.
    pub(super) fn end_of_stream(&mut self) {
        self.awaited = Awaited::Nothing;
    }

    /// Our last words have left.
    pub(super) fn flushed(&mut self) -> Afterwards {
        match &mut self.awaited {
            Awaited::Nothing => Afterwards::Close,
            Awaited::EndOfStream { shut: shut @ false, .. } => {
                *shut = true;
                Afterwards::Shutdown
            }
            Awaited::CloseFrame | Awaited::EndOfStream { .. } => Afterwards::Wait,
        }
    }

    /// When waiting ends, whatever the peer does.
    pub(super) const fn until(&self) -> Time {
        self.until
    }
}
