//! What clients send, event by event.

use std::io;

use super::drain::say_goaway;
use super::metrics::Door;
use super::request::{Asked, Unacceptable};
use super::{Holds, Settings, Shard, listen};
use crate::conn::{Conn, EndReason, Event};
use crate::hub::{Format, Recall, ShardIndex};
use crate::io::{Buffer, Driver, SocketId};
use crate::limits::QUIET_AFTER;
use crate::proto::dialect::Dialect;
use crate::proto::envelope::{self, Welcome};
use crate::proto::ws::deflate::Reach;
use crate::time::Time;

impl<D: Driver> Shard<D> {
    /// Bytes arrived.
    pub(super) fn receive(&mut self, now: Time, socket: SocketId, buffer: Buffer) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        self.metrics.bytes_in.add(buffer.bytes() as u64);
        let replies = &mut self.scratch.replies;
        let mut input = self.driver.received(buffer);
        let mut ending = None;
        let mut unacceptable = None;
        let message_bytes_max = self.settings.conn.message_bytes_max;
        while let Some(event) =
            connection.conn.receive(now, &mut input, replies, &mut self.codec, &self.settings.conn)
        {
            let asked = Asked { hub: &mut self.hub, client: socket, replies, now };
            let requests = &mut self.requests;
            let handled = match event {
                Event::Text(text) => requests.handle(text, asked),
                Event::Msgpack(message) => {
                    requests.handle_msgpack(message, asked, message_bytes_max)
                }
                Event::Payload(channel, payload) => {
                    requests.handle_payload(channel, payload, asked, message_bytes_max)
                }
                Event::Handled => continue,
                Event::Object(text) => {
                    let answers = connection.answers.as_deref_mut().expect("made when it began");
                    Ok(requests.publish(text, asked, answers))
                }
                Event::ObjectTooLong => {
                    let answers = connection.answers.as_deref_mut().expect("made when it began");
                    let number = answers.ask(None);
                    let reason = "the message is longer than limits.message_bytes_max";
                    answers.refuse(number, 413, "content_too_large", reason);
                    Ok(false)
                }
                Event::Publishing => {
                    self.metrics.requests[Door::Publish as usize].add(1);
                    connection.answers = Some(Box::default());
                    self.hub.collect_answers(socket);
                    self.wheel.set(socket, connection.conn.deadline(now, &self.settings.conn));
                    continue;
                }
                Event::Opened { hub, compression, user } => {
                    self.metrics.handshakes_ok.add(1);
                    self.metrics.clients.add(1);
                    connection.client = true;
                    // A first look soon: is it quiet, and when is it to be pinged?
                    let deadline = connection.conn.deadline(now, &self.settings.conn);
                    self.wheel.set(socket, deadline.min(now + QUIET_AFTER));
                    if hub {
                        if let Some(user) = user {
                            asked.hub.introduce(socket, &user);
                        }
                        begin(&connection.conn, compression, asked);
                        if connection.conn.raw_channel().is_none() {
                            greet(replies, &self.settings, self.index, socket, &mut self.random);
                        }
                        // It was in its handshake when the others were told.
                        if self.drain.is_some() {
                            say_goaway(replies, &mut self.random, self.settings.drain_window);
                        }
                    }
                    continue;
                }
                Event::Listening(listens, wanted, user) => {
                    self.metrics.requests[listen::door(listens) as usize].add(1);
                    self.metrics.clients.add(1);
                    connection.client = true;
                    let deadline = connection.conn.deadline(now, &self.settings.conn);
                    self.wheel.set(socket, deadline.min(now + QUIET_AFTER));
                    if let Some(user) = user {
                        asked.hub.introduce(socket, &user);
                    }
                    listen::begin(listens, &wanted, asked);
                    if self.drain.is_some() {
                        say_goaway(replies, &mut self.random, self.settings.drain_window);
                    }
                    continue;
                }
                Event::Refused(refusal) => {
                    self.metrics.refused[refusal.index()].add(1);
                    ending = Some(EndReason::HandshakeRefused);
                    continue;
                }
                Event::Ending(reason) => {
                    ending = Some(reason);
                    continue;
                }
            };
            self.metrics.messages_in.add(1);
            match handled {
                Ok(true) => {}
                Ok(false) => self.metrics.errors.add(1),
                Err(why) => {
                    unacceptable = Some(why);
                    break;
                }
            }
        }
        if let Some(Unacceptable { code, reason, end }) = unacceptable {
            let conn = &mut connection.conn;
            if conn.close(now, code, reason, replies, &self.settings.conn) {
                ending = Some(end);
            }
            // The peer's own good-bye may stand behind it.
            let event =
                conn.receive(now, &mut input, replies, &mut self.codec, &self.settings.conn);
            debug_assert_eq!(event, None, "a closing connection has no events");
        }
        let is_closing = connection.conn.is_closing();
        if connection.answers.is_some() {
            self.list_answered(socket);
            self.wait_for_answers(socket);
        }
        self.account_held(socket);
        match ending {
            Some(reason) => self.end(now, socket, reason),
            // Nothing is sent that would ask what is next: this may be what was waited for.
            None if is_closing => {
                if self.hub.is_drained(socket) {
                    self.finished(now, socket);
                }
            }
            None => self.reply(socket),
        }
        self.post_letters();
        if self.post.is_congested() {
            self.hold_back(socket);
        }
    }

    /// Queues what was replied, and stops reading from a client that does not read its replies.
    pub(super) fn reply(&mut self, socket: SocketId) {
        self.hub.reply(socket, &mut self.scratch.replies);
        // Also without a reply: acks may have come since the last look.
        self.throttle(socket);
    }

    /// Stops reading from a client that does not read its replies.
    pub(super) fn throttle(&mut self, socket: SocketId) {
        if self.hub.throttle(socket) {
            self.stop_reading(socket, Holds::REPLIES);
        }
    }

    /// Reads again from a client whose replies have left.
    pub(super) fn unthrottle(&mut self, now: Time, socket: SocketId) {
        self.read_again(now, socket, Holds::REPLIES);
    }

    /// Stops reading from a client whose requests another shard has no room for.
    fn hold_back(&mut self, socket: SocketId) {
        let Some(connection) = self.conns.get(socket) else { return };
        if !connection.holds.contains(Holds::LETTERS) {
            self.stop_reading(socket, Holds::LETTERS);
            self.held_back.push(socket);
        }
    }

    /// Reads again from the clients that were held back.
    pub(super) fn release_held_back(&mut self, now: Time) {
        for socket in std::mem::take(&mut self.held_back) {
            self.read_again(now, socket, Holds::LETTERS);
        }
    }

    /// The peer has said all it will say.
    pub(super) fn end_of_stream(&mut self, now: Time, socket: SocketId) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        match connection.conn.end_of_stream(now, &self.settings.conn) {
            Some(reason) => self.cut_off(now, socket, reason),
            None if connection.conn.is_closing() && self.hub.is_drained(socket) => {
                self.forget(now, socket);
            }
            // Last words are on their way, or still to be said; a timer bounds both.
            None => {}
        }
    }

    /// The connection is broken.
    pub(super) fn failed(&mut self, now: Time, socket: SocketId, error: &io::Error) {
        let Some(connection) = self.conns.get(socket) else { return };
        tracing::debug!(peer = %connection.peer, %error, "connection broken");
        self.break_off(now, socket, EndReason::PeerReset);
    }

    /// Keeps the sum of what connections hold of incomplete messages.
    pub(super) fn account_held(&mut self, socket: SocketId) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        let held = connection.keeps_bytes() as u32;
        self.held_bytes += held as usize;
        self.held_bytes -= std::mem::replace(&mut connection.held_bytes, held) as usize;
    }

    /// Reads from `socket` no more, for one reason.
    pub(super) fn stop_reading(&mut self, socket: SocketId, reason: Holds) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        let was_read = connection.holds.is_empty();
        connection.holds |= reason;
        if was_read {
            self.driver.pause(socket);
        }
    }

    /// Reads from `socket` again, unless there is a reason left beside `reasons`.
    pub(super) fn read_again(&mut self, now: Time, socket: SocketId, reasons: Holds) {
        let Some(connection) = self.conns.get_mut(socket) else { return };
        let was_read = connection.holds.is_empty();
        connection.holds -= reasons;
        if !was_read && connection.holds.is_empty() {
            // What it has said meanwhile is read from the next harvest on.
            connection.conn.excuse(now);
            self.driver.resume(socket);
        }
    }
}

/// The hub learns how a client that has just opened is spoken to, and what it came for.
fn begin(conn: &Conn, compression: Option<Reach>, asked: Asked<'_>) {
    let Asked { hub, client, replies, now } = asked;
    let dialect = conn.dialect();
    if dialect != Dialect::Json {
        // What was said so far is HTTP, which is the same for all.
        hub.reply(client, replies);
    }
    hub.agree(client, Format::of(dialect, compression));
    let Some(raw) = conn.raw_channel().filter(|raw| raw.subscribes) else { return };
    let since = raw.since().map(Recall::from);
    if let Err(refusal) = hub.subscribe(client, None, &raw.channel, since, replies, now) {
        hub.refuse(client, None, refusal);
    }
}

/// The first thing that a client hears.
fn greet(
    replies: &mut Vec<u8>,
    settings: &Settings,
    shard: ShardIndex,
    socket: SocketId,
    random: &mut fastrand::Rng,
) {
    let client = client_name(shard, socket, random);
    let welcome = Welcome {
        client: std::str::from_utf8(&client).expect("digits"),
        ping_interval_ms: millis(settings.conn.ping_interval),
        message_bytes_max: settings.conn.message_bytes_max as u64,
        channels_max: settings.hub.channels_per_client_max as u64,
    };
    envelope::welcome(replies, &welcome);
}

/// A name for logs and support, in 16 hexadecimal digits: shard, place, and chance, so that two
/// lives of a place do not share one. Written by hand: the formatter costs a handshake a twentieth
/// of what the server adds to the kernel's part.
fn client_name(shard: u16, socket: SocketId, random: &mut fastrand::Rng) -> [u8; 16] {
    let number = u64::from(shard) << 56
        | (socket.index() as u64 & 0xffff_ffff) << 24
        | random.u64(..1 << 24);
    std::array::from_fn(|digit| b"0123456789abcdef"[(number >> (60 - 4 * digit)) as usize & 0xf])
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
