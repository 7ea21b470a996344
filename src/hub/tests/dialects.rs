//! Clients that are spoken to in other dialects than JSON.

use super::world::settings;
use crate::hub::*;
use crate::mem::Key;
use crate::proto::dialect::{Dialect, frames};
use crate::proto::msgpack;
use crate::proto::ws::Opcode;
use crate::proto::ws::deflate::Reach;
use crate::time::Time;

/// One hub, and what is sent to clients whose sockets take everything.
struct One {
    hub: Hub,
    clients: u32,
}

impl One {
    fn new(settings: Settings) -> Self {
        Self { hub: Hub::new(settings, fastrand::Rng::with_seed(1)), clients: 0 }
    }

    /// Opens a client that is subscribed to `channel`.
    fn open(&mut self, format: Format, channel: &str) -> Key {
        self.resume(format, channel, None)
    }

    fn resume(&mut self, format: Format, channel: &str, since: Option<Recall>) -> Key {
        let client = Key::new(self.clients, 0);
        self.clients += 1;
        self.hub.open(client);
        self.hub.agree(client, format);
        let mut replies = Vec::new();
        let subscribed =
            self.hub.subscribe(client, None, channel, since, &mut replies, Time::START);
        subscribed.expect("there is room");
        assert!(replies.is_empty(), "without an id there is no answer");
        client
    }

    fn publish(&mut self, client: Key, payload: &str) {
        self.publish_to(client, "a", payload);
    }

    fn publish_to(&mut self, client: Key, channel: &str, payload: &str) {
        let publish = Publish { channel, payload: payload.as_bytes(), id: None, key: None };
        self.hub.publish(client, publish, Time::START).expect("it is taken");
    }

    fn settle(&mut self) {
        while self.hub.settle(Time::START) == Settled::OutboxFull {
            self.flush();
        }
        self.flush();
        let _ = self.hub.audit();
    }

    /// Settles, and lets who catches up do so.
    fn run(&mut self) -> Vec<(Key, Vec<u8>)> {
        let mut said = Vec::new();
        loop {
            self.hub.recall_due(Time::START);
            assert_eq!(self.hub.settle(Time::START), Settled::Done);
            let _ = self.hub.audit();
            said.extend(self.flush());
            if !self.hub.has_recalls_due() {
                return said;
            }
        }
    }

    /// What is sent to each client, by key.
    fn flush(&mut self) -> Vec<(Key, Vec<u8>)> {
        let (mut batch, mut said) = (Vec::new(), Vec::new());
        while self.hub.has_dirty() {
            self.hub.take_dirty(&mut batch, 10);
            for client in batch.drain(..) {
                let mut slices = Vec::new();
                self.hub.gather(client, &mut slices, 100);
                let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                if !bytes.is_empty() {
                    self.hub.sent(client, bytes.len());
                    said.push((client, bytes));
                }
            }
        }
        said.sort_by_key(|(client, _)| client.index());
        said
    }

    fn failed(&mut self) -> Vec<(Key, Failure)> {
        let mut failed = Vec::new();
        self.hub.take_failed(&mut failed);
        failed
    }
}

/// Frames of a MessagePack client, as JSON.
fn texts(bytes: &[u8]) -> Vec<String> {
    let text = |payload| {
        let mut text = Vec::new();
        msgpack::to_json(payload, &mut text, usize::MAX).expect("MessagePack");
        String::from_utf8(text).expect("JSON is text")
    };
    frames(bytes)
        .map(|frame| {
            assert_eq!(frame.opcode, Opcode::Binary);
            text(frame.payload)
        })
        .collect()
}

#[test]
fn each_client_gets_the_same_messages_in_its_own_format() {
    let mut one = One::new(settings());
    for format in [Format::Json, Format::Msgpack, Format::Raw, Format::Raw] {
        one.open(format, "a");
    }
    let publisher = Key::new(0, 0);
    for payload in ["[1e400]", "{\"$bin\":\"AAH/\"}"] {
        one.publish(publisher, payload);
    }
    assert_eq!(one.hub.settle(Time::START), Settled::Done);
    let said = one.flush();
    let messages = [
        r#"{"type":"message","channel":"a","seq":1,"payload":[1e400]}"#,
        r#"{"type":"message","channel":"a","seq":2,"payload":{"$bin":"AAH/"}}"#,
    ];
    let json: Vec<_> = frames(&said[0].1).map(|frame| frame.payload.to_vec()).collect();
    assert_eq!(json, messages.map(|message| message.as_bytes().to_vec()));
    assert_eq!(texts(&said[1].1), messages);
    for (_, raw) in &said[2..] {
        let raw: Vec<_> = frames(raw).map(|frame| (frame.opcode, frame.payload)).collect();
        assert_eq!(raw, [(Opcode::Text, &b"[1e400]"[..]), (Opcode::Binary, b"\x00\x01\xff")]);
    }
    assert_eq!(said.len(), 4);
    assert_eq!(one.hub.segments_bytes(), 0, "variants end with those who wait for them");
}

#[test]
fn a_format_is_made_once_for_all_who_want_it() {
    let waiting = |clients: usize, format| {
        let mut one = One::new(settings());
        let keys: Vec<Key> = (0..clients).map(|_| one.open(format, "a")).collect();
        for key in &keys {
            one.hub.blocked(*key);
        }
        one.publish(keys[0], "[1,2,3]");
        assert_eq!(one.hub.settle(Time::START), Settled::Done);
        one.hub.segments_bytes()
    };
    for format in [Format::Json, Format::Msgpack, Format::Raw] {
        let bytes = waiting(1, format);
        assert!(bytes > 0);
        assert_eq!(waiting(100, format), bytes, "{format:?}");
    }
    // What JSON made of it lives no longer than somebody waits for that.
    assert_eq!(waiting(1, Format::Raw), b"\x81\x07[1,2,3]".len());
}

#[test]
fn a_gap_is_told_in_msgpack() {
    let mut one = One::new(settings());
    let client = one.open(Format::Msgpack, "a");
    one.hub.blocked(client);
    for _ in 0..10 {
        one.publish(client, "1");
        one.settle();
    }
    one.hub.unblocked(client, Time::START);
    let said = one.flush();
    let texts = texts(&said[0].1);
    assert_eq!(
        texts[0],
        r#"{"type":"gap","channel":"a","from":1,"to":2,"reason":"slow_consumer"}"#
    );
    assert_eq!(texts.len(), 1 + 8);
    assert!(one.failed().is_empty());
}

#[test]
fn a_raw_client_fails_where_it_would_be_told_of_a_gap_and_gets_nothing_from_behind_it() {
    for (channel, rule) in [("a", Overflow::DropOldest), ("new", Overflow::DropNewest)] {
        let mut one = One::new(settings());
        assert_eq!(one.hub.settings.rules.of(channel).overflow, rule);
        let client = one.open(Format::Raw, channel);
        one.hub.blocked(client);
        for number in 1..=10 {
            one.publish_to(client, channel, &number.to_string());
            one.settle();
        }
        assert!(one.failed().is_empty(), "it may still read what came before");
        one.hub.unblocked(client, Time::START);
        let said = one.flush();
        let payloads: Vec<&[u8]> =
            said.iter().flat_map(|(_, bytes)| frames(bytes)).map(|frame| frame.payload).collect();
        let (from, to) = match rule {
            Overflow::DropOldest => (1, 2),
            _ => (9, 10),
        };
        let before: Vec<String> = (1..from).map(|number| number.to_string()).collect();
        assert_eq!(payloads, before.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
        let failed = one.failed();
        let [(failing, Failure::Lost { from: first, to: last, reason, .. })] = failed[..] else {
            panic!("{failed:?}")
        };
        assert_eq!((failing, first, last), (client, from, to));
        assert_eq!(reason, GapReason::SlowConsumer);
    }
}

/// A shard did not move any more: a raw client with a gap in front of its full outbox read again in
/// the tick in which more was published than fits. Room was waited for that nothing could make.
#[test]
fn nobody_waits_for_room_in_the_outbox_of_a_raw_client_that_has_failed() {
    let mut one = One::new(settings());
    let client = one.open(Format::Raw, "a");
    one.hub.blocked(client);
    for _ in 0..10 {
        one.publish(client, "1");
        one.settle();
    }
    one.hub.unblocked(client, Time::START);
    one.publish(client, "1");
    let mut rounds = 0;
    while one.hub.settle(Time::START) == Settled::OutboxFull {
        one.flush();
        rounds += 1;
        assert!(rounds < 10, "a flush makes room, or none is needed");
    }
    let failed = one.failed();
    assert!(matches!(failed[..], [(_, Failure::Lost { from: 1, to: 2, .. })]), "{failed:?}");
}

#[test]
fn a_raw_client_fails_for_what_is_shed_at_the_memory_ceiling() {
    let mut one = One::new(settings());
    let client = one.open(Format::Raw, "a");
    one.hub.blocked(client);
    one.publish(client, "1");
    one.settle();
    one.hub.shed(client);
    assert_eq!(one.hub.segments_bytes(), 0);
    one.hub.unblocked(client, Time::START);
    assert!(one.flush().is_empty());
    let failed = one.failed();
    assert!(
        matches!(
            failed[..],
            [(_, Failure::Lost { from: 1, to: 1, reason: GapReason::Memory, .. })]
        ),
        "{failed:?}"
    );
}

#[test]
fn a_raw_client_fails_for_what_others_are_told_in_an_error() {
    let mut one = One::new(settings());
    let raw = one.open(Format::Raw, "a");
    let msgpack = one.open(Format::Msgpack, "a");
    one.hub.refuse(raw, None, Refusal::Overloaded);
    one.hub.refuse(msgpack, Some(b"7"), Refusal::Overloaded);
    assert_eq!(one.failed(), [(raw, Failure::Refused(Refusal::Overloaded))]);
    let said = one.flush();
    assert_eq!(said.len(), 1);
    let texts = texts(&said[0].1);
    assert!(texts[0].starts_with(r#"{"type":"error","id":7,"code":"overloaded""#), "{texts:?}");
}

/// What keeps the last five messages of every channel.
fn with_history() -> One {
    let mut settings = settings();
    settings.rules.default.history = Retention { messages: 5, ..Retention::default() };
    let mut one = One::new(settings);
    let publisher = one.open(Format::Json, "other");
    for number in 1..=10 {
        one.publish(publisher, &number.to_string());
        one.settle();
    }
    one
}

fn epoch(one: &mut One) -> Epoch {
    let since = Some(Recall::After { epoch: None, seq: 0 });
    one.resume(Format::Raw, "a", since);
    one.run();
    let failed = one.failed();
    let [(_, Failure::Lost { epoch, from: 1, to: 5, reason: GapReason::EpochChanged })] =
        failed[..]
    else {
        panic!("{failed:?}")
    };
    epoch
}

#[test]
fn who_was_away_gets_what_is_kept_in_its_format_and_then_what_is_new() {
    for (format, known) in [(Format::Msgpack, 6), (Format::Raw, 6), (Format::Raw, 5)] {
        let mut one = with_history();
        let epoch = epoch(&mut one);
        let bytes = one.hub.segments_bytes();
        let client =
            one.resume(format, "a", Some(Recall::After { epoch: Some(epoch), seq: known }));
        let mut said = one.run();
        one.publish(client, "11");
        said.extend(one.run());
        let said: Vec<u8> = said.into_iter().flat_map(|(_, bytes)| bytes).collect();
        let payloads: Vec<String> = match format {
            Format::Raw => frames(&said)
                .map(|frame| String::from_utf8_lossy(frame.payload).into_owned())
                .collect(),
            _ => texts(&said)
                .iter()
                .map(|text| text.rsplit_once(':').expect("a payload").1.replace('}', ""))
                .collect(),
        };
        let expected: Vec<String> = (known + 1..=11).map(|number| number.to_string()).collect();
        assert_eq!(payloads, expected, "{format:?}");
        assert!(one.failed().is_empty());
        // One message more, and one digit more.
        assert!(one.hub.segments_bytes().abs_diff(bytes) < 3, "only the history is left");
    }
}

#[test]
fn a_page_in_another_format_is_made_once_for_all_who_wait_for_it() {
    let mut one = with_history();
    let epoch = epoch(&mut one);
    let since = Some(Recall::After { epoch: Some(epoch), seq: 5 });
    let before = one.hub.segments_bytes();
    let waiting = |one: &mut One| {
        let client = one.resume(Format::Msgpack, "a", since);
        one.hub.blocked(client);
        one.run();
        one.hub.segments_bytes()
    };
    let first = waiting(&mut one);
    assert!(first > before);
    for _ in 0..20 {
        assert_eq!(waiting(&mut one), first);
    }
}

#[test]
fn a_raw_client_that_was_away_too_long_fails_with_what_is_gone() {
    let mut one = with_history();
    let epoch = epoch(&mut one);
    let since = Some(Recall::After { epoch: Some(epoch), seq: 3 });
    let client = one.resume(Format::Raw, "a", since);
    assert!(one.run().is_empty(), "nothing from behind what is lost");
    let lost = Failure::Lost { epoch, from: 4, to: 5, reason: GapReason::TooOld };
    assert_eq!(one.failed(), [(client, lost)]);
}

/// Also when everything of the new life can be had: what is lost of the old one nobody can count.
#[test]
fn a_raw_client_of_another_epoch_fails_although_all_of_the_new_one_is_kept() {
    let mut one = One::new(settings());
    let client = one.resume(Format::Raw, "a", Some(Recall::After { epoch: None, seq: 7 }));
    assert!(one.run().is_empty());
    let failed = one.failed();
    assert!(
        matches!(
            failed[..],
            [(it, Failure::Lost { from: 1, to: 0, reason: GapReason::EpochChanged, .. })]
                if it == client
        ),
        "{failed:?}"
    );
}

#[test]
fn replies_that_are_nothing_in_a_format_take_no_outbox() {
    let mut one = One::new(settings());
    let client = one.open(Format::Raw, "a");
    let mut replies = Vec::new();
    crate::proto::envelope::goaway(&mut replies, 1);
    one.hub.reply(client, &mut replies);
    assert!(replies.is_empty() && !one.hub.has_dirty() && one.hub.is_drained(client));
    assert_eq!(one.hub.replies_bytes(), 0);
}

#[test]
fn every_dialect_has_its_form_whatever_was_agreed_on_about_compression() {
    for dialect in Dialect::ALL {
        for compression in [None, Some(Reach::Wide), Some(Reach::Narrow)] {
            assert_eq!(Format::of(dialect, compression).dialect(), dialect);
        }
    }
}
