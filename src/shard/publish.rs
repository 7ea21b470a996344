//! Publishes over HTTP: what each object asks for, and the answers in the order they were asked.
//!
//! The answers come as the channels' homes give them, those of other shards later than one's own;
//! each waits here for those before it.

use std::collections::VecDeque;

use super::{Connection, Holds, Shard};
use crate::conn::{self, EndReason, Event};
use crate::hub::{self, RequestId};
use crate::io::{Driver, SocketId};
use crate::limits::PUBLISHES_UNANSWERED_MAX;
use crate::proto::envelope::{self, Bare};
use crate::time::Time;

/// When to try again what there was no room for.
const RETRY_AFTER_S: u32 = 1;

/// The answers that one connection waits for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Place>,
    /// Bytes of the answers that wait for those before them.
    bytes: usize,
    /// Listed in `Shard::answered`.
    listed: bool,
}

/// Where an answer belongs.
#[derive(Debug)]
struct Place {
    /// The client's own name for its request, if it has one.
    id: Option<RequestId>,
    answer: Option<Written>,
}

/// An answer, and with which status it is given.
#[derive(Debug)]
struct Written {
    status: u16,
    object: Vec<u8>,
}

impl Answers {
    /// Makes a place for the next answer; returns its number.
    pub(super) fn ask(&mut self, id: Option<&[u8]>) -> u64 {
        self.places.push_back(Place { id: id.map(Into::into), answer: None });
        self.first + self.places.len() as u64 - 1
    }

    /// Puts an error in its place.
    pub(super) fn refuse(&mut self, number: u64, status: u16, code: &str, reason: &str) {
        self.put(number, status, |object, id| {
            envelope::error(&mut Bare(object), id, code, reason);
        });
    }

    /// Puts into its place what the hub says.
    pub(super) fn put_outcome(&mut self, answer: &hub::Answer) {
        let number = <[u8; 8]>::try_from(&*answer.id).expect("it was given as eight bytes");
        let number = u64::from_be_bytes(number);
        match &answer.outcome {
            Ok(hub::Acked { channel, seq, is_repeated }) => {
                self.put(number, 200, |object, id| {
                    envelope::ack(&mut Bare(object), id, channel, *seq, *is_repeated);
                });
            }
            Err(refusal) => {
                self.refuse(number, status(*refusal), refusal.code(), refusal.reason());
            }
        }
    }

    fn put(&mut self, number: u64, status: u16, write: impl FnOnce(&mut Vec<u8>, Option<&[u8]>)) {
        let index = usize::try_from(number - self.first).expect("places are bounded");
        let place = &mut self.places[index];
        let mut object = Vec::new();
        write(&mut object, place.id.as_deref());
        self.bytes += object.capacity();
        let before = place.answer.replace(Written { status, object });
        debug_assert!(before.is_none(), "what was asked once is answered once");
    }

    /// The next answer, if it is there.
    fn next(&mut self) -> Option<Written> {
        let written = self.places.front_mut()?.answer.take()?;
        self.places.pop_front();
        self.first += 1;
        self.bytes -= written.object.capacity();
        Some(written)
    }

    /// Whether the next answer is there.
    pub(super) fn is_ready(&self) -> bool {
        self.places.front().is_some_and(|place| place.answer.is_some())
    }

    /// Whether so much is unanswered that no more is to be asked.
    pub(super) fn is_behind(&self) -> bool {
        self.places.len() > PUBLISHES_UNANSWERED_MAX as usize
    }

    /// Whether so little is unanswered that more may be asked.
    fn has_caught_up(&self) -> bool {
        self.places.len() <= PUBLISHES_UNANSWERED_MAX as usize / 2
    }

    /// Bytes that waiting costs.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + self.places.capacity() * size_of::<Place>()
    }
}

/// The HTTP status of an answer that is not an ack.
pub(super) const fn status(refusal: hub::Refusal) -> u16 {
    match refusal {
        hub::Refusal::ChannelsExhausted | hub::Refusal::Overloaded => 503,
        hub::Refusal::TooManyChannels
        | hub::Refusal::TooManyIntervals
        | hub::Refusal::TooManyMatches
        | hub::Refusal::TooManyPatterns
        | hub::Refusal::TooManyWishes => 429,
        hub::Refusal::NoPresence | hub::Refusal::NotSubscribed => 404,
        hub::Refusal::Reserved => 403,
        hub::Refusal::AlreadySubscribed | hub::Refusal::NotConflated => 400,
    }
}

impl<D: Driver> Shard<D> {
    /// Lists a connection whose next answer is there.
    pub(super) fn list_answered(&mut self, socket: SocketId) {
        let Some(answers) = self.conns.get_mut(socket).and_then(|it| it.answers.as_deref_mut())
        else {
            return;
        };
        if answers.is_ready() && !std::mem::replace(&mut answers.listed, true) {
            self.answered.push(socket);
        }
    }

    /// Stops reading from a connection that has asked much and not been answered.
    pub(super) fn wait_for_answers(&mut self, socket: SocketId) {
        let answers = self.conns.get(socket).and_then(|it| it.answers.as_deref());
        if answers.is_some_and(Answers::is_behind) {
            self.stop_reading(socket, Holds::ANSWERS);
        }
    }

    /// Whether there may be answers to give.
    #[inline]
    pub(super) const fn has_answers(&self) -> bool {
        !self.answered.is_empty() || self.hub.has_answers()
    }

    /// Gives every answer that is there and has none missing before it.
    pub(super) fn give_answers(&mut self, now: Time) {
        let mut outcomes = std::mem::take(&mut self.scratch.answers);
        self.hub.take_answers(&mut outcomes);
        for outcome in outcomes.drain(..) {
            let connection = self.conns.get_mut(outcome.client);
            if let Some(answers) = connection.and_then(|it| it.answers.as_deref_mut()) {
                answers.put_outcome(&outcome);
                self.account_held(outcome.client);
                self.list_answered(outcome.client);
            }
        }
        self.scratch.answers = outcomes;
        let mut answered = std::mem::take(&mut self.answered);
        for socket in answered.drain(..) {
            self.give_answers_to(now, socket);
        }
        self.answered = answered;
    }

    fn give_answers_to(&mut self, now: Time, socket: SocketId) {
        let Some(Connection { conn, answers: Some(answers), .. }) = self.conns.get_mut(socket)
        else {
            return;
        };
        answers.listed = false;
        let mut ending = None;
        while let (None, Some(Written { status, object })) = (&ending, answers.next()) {
            let retry_after_s = (status == 503).then_some(RETRY_AFTER_S);
            let answer = conn::Answer { status, retry_after_s, object: &object };
            let replies = &mut self.scratch.replies;
            ending = conn.answer(now, &answer, replies, &self.settings.conn);
        }
        let has_caught_up = answers.has_caught_up();
        self.account_held(socket);
        match ending {
            None => self.reply(socket),
            Some(Event::Refused(refusal)) => {
                self.metrics.refused[refusal.index()].add(1);
                self.end(now, socket, EndReason::HandshakeRefused);
            }
            Some(Event::Ending(reason)) => self.end(now, socket, reason),
            Some(_) => unreachable!("an answer ends a connection or not"),
        }
        if has_caught_up {
            self.read_again(now, socket, Holds::ANSWERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(answers: &mut Answers) -> Vec<(u16, String)> {
        std::iter::from_fn(|| answers.next())
            .map(|it| (it.status, String::from_utf8(it.object).unwrap()))
            .collect()
    }

    fn outcome(number: u64, outcome: Result<(&str, u64), hub::Refusal>) -> hub::Answer {
        hub::Answer {
            client: crate::mem::Key::new(0, 0),
            id: RequestId::from_slice(&number.to_be_bytes()),
            outcome: outcome.map(|(channel, seq)| hub::Acked {
                channel: channel.into(),
                seq,
                is_repeated: false,
            }),
        }
    }

    #[test]
    fn answers_are_given_in_the_order_of_the_questions_with_their_ids() {
        let mut answers = Answers::default();
        let numbers = [Some(&b"7"[..]), None, Some(b"\"c\""), None].map(|id| answers.ask(id));
        answers.put_outcome(&outcome(numbers[2], Ok(("orders", 5))));
        answers.refuse(numbers[1], 400, "bad_channel", "no");
        assert!(!answers.is_ready());
        assert_eq!(objects(&mut answers), []);
        let held = answers.held_bytes();
        answers.put_outcome(&outcome(numbers[0], Err(hub::Refusal::Overloaded)));
        assert!(answers.is_ready() && answers.held_bytes() > held);
        let given = objects(&mut answers);
        assert_eq!(given[0].0, 503);
        assert!(given[0].1.starts_with(r#"{"type":"error","id":7,"code":"overloaded""#));
        assert_eq!(given[1].1, r#"{"type":"error","code":"bad_channel","reason":"no"}"#);
        assert_eq!(given[2].1, r#"{"type":"ack","id":"c","channel":"orders","seq":5}"#);
        assert_eq!(given.len(), 3);
        answers.put_outcome(&outcome(numbers[3], Ok(("orders", 6))));
        assert_eq!(objects(&mut answers)[0].1, r#"{"type":"ack","channel":"orders","seq":6}"#);
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn much_that_is_unanswered_stops_the_questions_until_half_is_answered() {
        let mut answers = Answers::default();
        for number in 0..u64::from(PUBLISHES_UNANSWERED_MAX) {
            assert_eq!(answers.ask(None), number);
        }
        assert!(!answers.is_behind());
        answers.ask(None);
        assert!(answers.is_behind());
        for number in 0..u64::from(PUBLISHES_UNANSWERED_MAX / 2) {
            answers.put_outcome(&outcome(number, Ok(("a", 1))));
            answers.next().expect("it is there");
            assert!(!answers.has_caught_up() && !answers.is_ready());
        }
        answers.put_outcome(&outcome(u64::from(PUBLISHES_UNANSWERED_MAX / 2), Ok(("a", 1))));
        answers.next().expect("it is there");
        assert!(answers.has_caught_up());
    }
}
