//! One client's life on the wire: handshake, then an open WebSocket, a publish or a listener, closing.
//!
//! A [`Conn`] is fed what its socket received and hands out what that means, one [`Event`] at a
//! time; what it wants to send, it appends to the replies it is given. It owns the WebSocket
//! rules, the HTTP answers, the pings and the time limits of a connection. It does no I/O, reads
//! no clock, and knows nothing of channels.
//!
//! Reading order: this page (the verbs), `receive` (what bytes mean), `handshake`, `open`, `publish`
//! and `closing` (the phases), `raw` (what a URL of ringcast.raw.v1 asks for) and `user` (who it says
//! it is for), `keepalive` (when what is due).
#![forbid(unsafe_code)]

mod closing;
mod end;
mod handshake;
mod keepalive;
mod listen;
mod open;
mod publish;
mod raw;
mod receive;
mod settings;
mod user;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;

use crate::proto::dialect::Dialect;
use crate::proto::http::{self, Manner, Refusal};
use crate::proto::ws::close;
use crate::proto::ws::deflate::Reach;
use crate::proto::ws::frame::{Opcode, write_frame};
use crate::time::Time;
use closing::Closing;
use handshake::Handshake;
use keepalive::{Due, Keepalive};
use listen::Listen;
use open::Open;
use publish::Publish;

pub use end::EndReason;
pub use listen::{Listens, Wanted};
pub use publish::Answer;
pub use raw::RawChannel;
pub use settings::{Page, Settings};

/// One client's life on the wire.
#[derive(Debug)]
pub struct Conn {
    stage: Stage,
    /// Once it is set, the client's life has ended and only the connection's is left.
    closing: Option<Closing>,
    keepalive: Keepalive,
}

/// What the received bytes are.
#[derive(Debug)]
enum Stage {
    /// HTTP.
    Handshake(Handshake),
    /// WebSocket frames.
    Open(Open),
    /// HTTP: a body that comes in.
    Publish(Box<Publish>),
    /// HTTP: an answer that goes out as things happen.
    Listen(Box<Listen>),
}

/// Idle connections are what there is most of.
const _: () = assert!(size_of::<Conn>() <= 88);

/// What the bytes of a client, or the time, mean for the rest of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The WebSocket handshake is done. With `hub`, the client speaks [`Conn::dialect`].
    Opened {
        /// Whether its messages are for the hub.
        hub: bool,
        /// Whether its messages may be sent compressed, and how.
        compression: Option<Reach>,
        /// Who it says that it is.
        user: Option<Box<str>>,
    },
    /// A text message for the hub, valid UTF-8.
    Text(&'a mut [u8]),
    /// A message for the hub in ringcast.msgpack.v1.
    Msgpack(&'a mut [u8]),
    /// A message for a channel that is its payload.
    Payload(&'a str, Payload<'a>),
    /// Objects to be published are going to come.
    Publishing,
    /// It listens to these channels, and has no more to say than who it says that it is. A poll is to
    /// be answered with [`Conn::answer_poll`].
    Listening(Listens, Vec<Wanted>, Option<Box<str>>),
    /// An object to be published, not yet proven to be one; to be answered with [`Conn::answer`].
    Object(&'a mut [u8]),
    /// One that is longer than a message may be, and was thrown away; to be answered likewise.
    ObjectTooLong,
    /// Something that concerned only the connection, such as a ping, which has been answered.
    Handled,
    /// The client's life ends before it began: its request was refused, as has been appended to
    /// the replies.
    Refused(Refusal),
    /// The client's life ends, for this reason; told once. What is still to be said has been
    /// appended to the replies; when it has left, ask [`Conn::flushed`].
    Ending(EndReason),
}

/// What a client of ringcast.raw.v1 sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Text, valid UTF-8.
    Text(&'a [u8]),
    /// Bytes of any kind.
    Binary(&'a [u8]),
}

/// What is to be done with a socket when all that was to be said has been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing: the peer's turn.
    Wait,
    /// Send a FIN and go on receiving.
    Shutdown,
    /// Close it.
    Close,
}

/// What the time asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Nothing yet; look again at this time.
    Later(Time),
    /// The client has been silent; a ping has been appended to the replies. Look again at this
    /// time.
    Pinged(Time),
    /// A poll is to be answered as soon as may be. Look again at this time.
    Answer(Time),
    /// The client's life ends, for this reason; last words have been appended to the replies.
    Ending(EndReason),
    /// The socket is to be closed now. With a reason, the client's life ends only now.
    Close(Option<EndReason>),
}

impl Conn {
    /// A peer has connected.
    #[must_use]
    pub fn accepted(now: Time, random: &mut fastrand::Rng) -> Self {
        Self {
            stage: Stage::Handshake(Handshake::default()),
            closing: None,
            keepalive: Keepalive::accepted(now, random),
        }
    }

    /// Turns a peer away, whose request has not been answered to its end.
    pub fn turn_away(
        &mut self,
        now: Time,
        refusal: Refusal,
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) {
        match &mut self.stage {
            Stage::Publish(publish) => publish.turn_away(refusal, replies),
            Stage::Listen(listen) => listen.turn_away(&refusal, replies),
            _ => http::write_refusal(replies, &refusal, Manner::default()),
        }
        self.linger(now, settings);
    }

    /// Our last words are written; the peer may go on talking, unless it has ended.
    fn linger(&mut self, now: Time, settings: &Settings) {
        let until = now + settings.close_timeout;
        let has_ended = matches!(&self.stage, Stage::Publish(publish) if publish.peer_ended);
        let closing = if has_ended { Closing::done(until) } else { Closing::linger(until) };
        self.closing = Some(closing);
    }

    /// Ends the client's life with a close frame, if it is open, else silently. False when it has
    /// ended already.
    pub fn close(
        &mut self,
        now: Time,
        code: u16,
        reason: &str,
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> bool {
        if self.closing.is_some() {
            return false;
        }
        let until = now + settings.close_timeout;
        self.closing = Some(match self.stage {
            Stage::Open(_) => {
                close::write_close(replies, code, reason);
                Closing::handshake(until)
            }
            Stage::Listen(ref listen) if listen.listens() == Listens::Stream => {
                close::write_close(replies, code, reason);
                Closing::linger(until)
            }
            Stage::Handshake(_) | Stage::Publish(_) | Stage::Listen(_) => Closing::done(until),
        });
        true
    }

    /// The peer has said all it will say. With a reason, the client's life ends now.
    pub fn end_of_stream(&mut self, now: Time, settings: &Settings) -> Option<EndReason> {
        if let Some(closing) = &mut self.closing {
            closing.end_of_stream();
            return None;
        }
        // RFC 9112 9.6: who has sent its whole request may end its half of the connection.
        if let Stage::Publish(publish) = &mut self.stage
            && publish.is_waiting()
        {
            publish.peer_ended = true;
            return None;
        }
        self.closing = Some(Closing::done(now + settings.close_timeout));
        Some(match self.stage {
            // HTTP has no other word for good-bye.
            Stage::Listen(_) => EndReason::PeerClosed,
            _ => EndReason::PeerVanished,
        })
    }

    /// All replies have left; what is to be done with the socket?
    pub fn flushed(&mut self) -> Afterwards {
        self.closing.as_mut().map_or(Afterwards::Wait, Closing::flushed)
    }

    /// Looks at the time. To be called when [`deadline`](Self::deadline) has come, or before.
    pub fn expire(&mut self, now: Time, replies: &mut Vec<u8>, settings: &Settings) -> Expired {
        if let Some(closing) = &self.closing {
            let until = closing.until();
            return if until <= now { Expired::Close(None) } else { Expired::Later(until) };
        }
        if let Stage::Handshake(_) = self.stage {
            let until = self.keepalive.opened() + settings.handshake_timeout;
            if until > now {
                return Expired::Later(until);
            }
            self.turn_away(now, Refusal::RequestTimeout, replies, settings);
            return Expired::Ending(EndReason::HandshakeTimeout);
        }
        if let Stage::Publish(publish) = &self.stage {
            if publish.until() > now {
                return Expired::Later(publish.until());
            }
            let (refusal, reason) = publish.overdue();
            self.turn_away(now, refusal, replies, settings);
            return Expired::Ending(reason);
        }
        if let Stage::Listen(listen) = &mut self.stage {
            let interval = self.keepalive.interval(settings);
            return match listen.expire(now, interval, settings) {
                listen::Due::Later(time) => Expired::Later(time),
                listen::Due::Heartbeat(time) => {
                    write_frame(replies, Opcode::Ping, b"");
                    Expired::Pinged(time)
                }
                listen::Due::Answer(time) => Expired::Answer(time),
                listen::Due::Unanswered => {
                    self.turn_away(now, Refusal::Unanswered, replies, settings);
                    Expired::Ending(EndReason::Unanswered)
                }
            };
        }
        match self.keepalive.due(now, settings) {
            Due::Later(time) => Expired::Later(time),
            Due::Ping => {
                write_frame(replies, Opcode::Ping, b"");
                self.keepalive.pinged(now);
                // The pong is not all that may be due next.
                Expired::Pinged(self.deadline(now, settings))
            }
            // Nobody there to say good-bye to.
            Due::PongTimeout => Expired::Close(Some(EndReason::PongTimeout)),
            Due::IdleTimeout => {
                let reason = "no message within idle_timeout";
                self.close(now, close::NORMAL, reason, replies, settings);
                Expired::Ending(EndReason::IdleTimeout)
            }
        }
    }

    /// Its silence until now says nothing, because it was not read from.
    pub fn excuse(&mut self, now: Time) {
        self.keepalive.excuse(now);
    }

    /// When to look at the time next.
    #[must_use]
    pub fn deadline(&self, now: Time, settings: &Settings) -> Time {
        match (&self.closing, &self.stage) {
            (Some(closing), _) => closing.until(),
            (None, Stage::Handshake(_)) => self.keepalive.opened() + settings.handshake_timeout,
            (None, Stage::Publish(publish)) => publish.until(),
            (None, Stage::Listen(listen)) => listen.due(),
            (None, Stage::Open(_)) => match self.keepalive.due(now, settings) {
                Due::Later(time) => time,
                Due::Ping | Due::PongTimeout | Due::IdleTimeout => now,
            },
        }
    }

    /// Forgets what it has heard, on a connection that is closing: nothing more is understood.
    pub fn abandon(&mut self, now: Time, settings: &Settings) {
        self.closing = Some(Closing::linger(now + settings.close_timeout));
        match &mut self.stage {
            Stage::Handshake(handshake) => *handshake = Handshake::default(),
            Stage::Open(open) => open.abandon(),
            Stage::Publish(publish) => publish.abandon(),
            Stage::Listen(_) => {}
        }
    }

    /// What the client speaks and is spoken to.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match &self.stage {
            Stage::Handshake(_) | Stage::Publish(_) | Stage::Listen(_) => Dialect::default(),
            Stage::Open(open) => open.dialect,
        }
    }

    /// The one channel of a client that speaks ringcast.raw.v1.
    #[must_use]
    pub fn raw_channel(&self) -> Option<&RawChannel> {
        match &self.stage {
            Stage::Open(open) => open.channel(),
            _ => None,
        }
    }

    /// When the last byte came.
    #[must_use]
    pub const fn heard(&self) -> Time {
        self.keepalive.last_heard()
    }

    /// Whether the client's life goes on and is told what happens: its WebSocket is open, or it
    /// listens to a stream.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.closing.is_none() && (self.is_websocket() || self.is_stream())
    }

    /// Whether it speaks frames.
    #[must_use]
    pub const fn is_websocket(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether the client listens to a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(&self.stage, Stage::Listen(listen) if listen.listens() == Listens::Stream)
    }

    /// Whether the client's life has ended.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether the client's life goes on and it polls.
    #[must_use]
    pub fn is_poll(&self) -> bool {
        let is_poll = matches!(&self.stage, Stage::Listen(_)) && !self.is_stream();
        is_poll && self.closing.is_none()
    }

    /// Bytes kept of what is incomplete, and of what a compressed message may refer back to.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.stage {
            Stage::Handshake(handshake) => handshake.held_bytes(),
            Stage::Open(open) => open.held_bytes(),
            Stage::Publish(publish) => publish.held_bytes(),
            Stage::Listen(_) => 0,
        }
    }

    /// Bytes of these that a compressed message may refer back to.
    #[must_use]
    pub fn window_bytes(&self) -> usize {
        match &self.stage {
            Stage::Handshake(_) | Stage::Publish(_) | Stage::Listen(_) => 0,
            Stage::Open(open) => open.window_bytes(),
        }
    }
}
