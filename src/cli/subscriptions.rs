//! What is known of each channel that is listened to: where it stands, where a new connection goes
//! on, and what each message of the server means for somebody who must not lose one unknowingly.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use super::answer::Answer;
use crate::limits::MATCHED_CHANNELS_PER_CLIENT_MAX;
use crate::proto::envelope::has_wildcard;
use crate::proto::envelope::pattern::matches;
use crate::proto::json::{write_number, write_string};

/// A place in a channel: after the message with this number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// The life of the numbering.
    pub(super) epoch: String,
    pub(super) seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.epoch, self.seq)
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// With what is published from now on.
    Live,
    /// With the last value.
    Latest,
    /// With the last few.
    Last(u32),
    /// After these, channel by channel; live where there is none.
    After(Vec<Option<Position>>),
}

impl Begin {
    /// Reads a cursor: `EPOCH.SEQ` for each of `channels` channels, `-` for none.
    ///
    /// # Errors
    /// One line that says what to write instead.
    pub(super) fn after(cursor: &str, channels: usize) -> Result<Self, String> {
        let positions: Option<Vec<_>> = cursor.split(',').map(position).collect();
        match positions {
            None => Err(format!("{cursor:?} is no position: write EPOCH.SEQ, or - for none")),
            Some(positions) if positions.len() != channels => Err(format!(
                "{} positions for {channels} channels: write one for each, with commas between, \
                 and - for none",
                positions.len()
            )),
            Some(positions) => Ok(Self::After(positions)),
        }
    }
}

/// What one part of a cursor says; `None` when that is nothing.
#[expect(clippy::option_option, reason = "a part may say that there is no position")]
fn position(part: &str) -> Option<Option<Position>> {
    if part == "-" {
        return Some(None);
    }
    let (epoch, seq) = part.rsplit_once('.')?;
    let seq = seq.parse().ok()?;
    (!epoch.is_empty()).then(|| Some(Position { epoch: epoch.to_owned(), seq }))
}

/// What a message means for who reads along.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard<'a> {
    /// A message to hand on.
    pub(super) message: Option<Message<'a>>,
    /// What there is to say about the channel.
    pub(super) note: Option<String>,
    /// Whether a channel was refused.
    pub(super) is_refused: bool,
}

impl Heard<'_> {
    fn note(note: String) -> Self {
        Self { note: Some(note), ..Self::default() }
    }
}

/// A message of a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) channel: String,
    pub(super) seq: u64,
    /// As it was published.
    pub(super) payload: &'a [u8],
}

/// The channels and patterns that are listened to.
///
/// A position is the last number that was handed on or told as missing: what comes at or below it
/// came before, and whatever lies between it and the next message is told.
/// Those that were asked for come first; behind them are the channels that patterns have brought.
/// On a new connection each of these is asked for by its own position, and left to its pattern again
/// when that has been answered.
pub(super) struct Subscriptions {
    channels: Vec<Subscription>,
    indices: HashMap<String, usize>,
    /// How many were asked for.
    asked: usize,
    /// What is to be said because of what was heard.
    requests: Vec<Vec<u8>>,
}

struct Subscription {
    channel: String,
    begin: Begin,
    position: Option<Position>,
    is_refused: bool,
    /// A pattern has brought it, and on this connection it was asked for by its name.
    is_borrowed: bool,
}

impl Subscriptions {
    pub(super) fn new(channels: Vec<String>, begin: &Begin) -> Self {
        let indices =
            channels.iter().enumerate().map(|(index, name)| (name.clone(), index)).collect();
        let subscription = |(index, channel)| {
            let position = match begin {
                Begin::After(positions) => positions.get(index).cloned().flatten(),
                _ => None,
            };
            Subscription::new(channel, begin.clone(), position)
        };
        let asked = channels.len();
        let channels = channels.into_iter().enumerate().map(subscription).collect();
        Self { channels, indices, asked, requests: Vec::new() }
    }

    /// Those that were asked for.
    fn asked(&self) -> impl Iterator<Item = &Subscription> {
        self.channels[..self.asked].iter()
    }

    /// Whether none is left that the server has not refused.
    pub(super) fn is_empty(&self) -> bool {
        self.asked().all(|subscription| subscription.is_refused)
    }

    /// Where all of them stand, once any of them stands somewhere.
    pub(super) fn cursor(&self) -> Option<String> {
        self.asked().find(|subscription| subscription.position.is_some())?;
        let mut cursor = String::new();
        for subscription in self.asked() {
            let comma = if cursor.is_empty() { "" } else { "," };
            let _ = match &subscription.position {
                Some(position) => write!(cursor, "{comma}{position}"),
                None => write!(cursor, "{comma}-"),
            };
        }
        Some(cursor)
    }

    /// The requests to send on a new connection: channels, then patterns, so that nothing is missed
    /// between a channel's position and the beginning of its pattern. Their `id` is the index.
    pub(super) fn requests(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.requests.clear();
        let asked = self.asked;
        for brought in &mut self.channels[asked..] {
            brought.is_borrowed = true;
        }
        let (patterns, channels): (Vec<_>, Vec<_>) =
            self.channels.iter().enumerate().partition(|(_, it)| has_wildcard(&it.channel));
        let all = channels.into_iter().chain(patterns);
        let wanted = all.filter(|(_, subscription)| !subscription.is_refused);
        wanted.map(|(index, subscription)| subscription.request(index))
    }

    /// What is to be said because of what was heard since the last call.
    pub(super) fn take_requests(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.requests)
    }

    /// Takes in what the server says.
    pub(super) fn hear<'a>(&mut self, text: &'a [u8]) -> Heard<'a> {
        let Some(answer) = Answer::parse(text) else { return Heard::default() };
        let heard = if answer.is("message") {
            self.message(&answer)
        } else if answer.is("gap") {
            self.gap(&answer).map(Heard::note)
        } else if answer.is("subscribed") && answer.raw("channel").is_none() {
            self.give_back(&answer);
            None
        } else if answer.is("subscribed") {
            self.subscribed(&answer).map(Heard::note)
        } else if answer.is("unsubscribed") {
            self.ended(&answer)
        } else if answer.is("error") {
            Some(self.error(&answer))
        } else {
            None
        };
        heard.unwrap_or_default()
    }

    fn of(&mut self, channel: &str) -> Option<&mut Subscription> {
        self.indices.get(channel).map(|index| &mut self.channels[*index])
    }

    fn message<'a>(&mut self, answer: &Answer<'a>) -> Option<Heard<'a>> {
        let (channel, seq) = (answer.text("channel")?, answer.number("seq")?);
        // Where newer values superseded others, one message stands for several numbers.
        let from = answer.number("from").unwrap_or(seq);
        let payload = answer.raw("payload")?;
        let mut note = None;
        if let Some(position) = self.of(&channel).and_then(|known| known.position.as_mut()) {
            if seq <= position.seq {
                return None;
            }
            note = missing(&channel, position.seq + 1, from.saturating_sub(1), "nobody said why");
            position.seq = seq;
        }
        let message = Some(Message { channel, seq, payload });
        Some(Heard { message, note, is_refused: false })
    }

    fn gap(&mut self, answer: &Answer<'_>) -> Option<String> {
        let channel = answer.text("channel")?;
        let (mut from, to) = (answer.number("from")?, answer.number("to")?);
        let reason = answer.text("reason").unwrap_or_default();
        if let Some(position) = self.of(&channel).and_then(|known| known.position.as_mut()) {
            // From where we stand, whatever the notice begins with: each number is told once.
            from = position.seq + 1;
            position.seq = position.seq.max(to);
        }
        missing(&channel, from, to, &reason)
    }

    /// The channel goes on: says what of that which was missed will follow.
    fn subscribed(&mut self, answer: &Answer<'_>) -> Option<String> {
        let (channel, epoch) = (answer.text("channel")?, answer.text("epoch")?);
        let seq = answer.number("seq")?;
        let from = answer.number("from").unwrap_or(seq + 1);
        let reason = answer.text("reason");
        if answer.raw("pattern").is_some() {
            self.know(&channel);
        }
        let known = self.of(&channel)?;
        let now = Position { epoch, seq: from.saturating_sub(1) };
        let before = known.position.replace(now.clone())?;
        // The same epoch is another life, too, where our number is beyond its newest.
        if before.epoch != now.epoch || reason.as_deref() == Some("epoch_changed") {
            let follows = match seq {
                0 => "and has published nothing since".into(),
                _ => format!("up to {seq} by now; what it keeps of that follows"),
            };
            return Some(format!(
                "{channel}: the server numbers it anew, {follows}. What came after {} in the old \
                 numbering is lost",
                before.seq
            ));
        }
        let why = reason.as_deref().unwrap_or("not connected");
        let lost = missing(&channel, before.seq + 1, now.seq, why);
        let is_recovered = answer.raw("recovered") == Some(b"true");
        let follows = (from <= seq).then(|| match is_recovered {
            true => format!("{channel}: {} recovered", numbers(from, seq)),
            false => format!("{channel}: of {from} to {seq}, what is kept follows ({why})"),
        });
        match (lost, follows) {
            (Some(lost), Some(follows)) => Some(format!("{lost}\n{follows}")),
            (lost, follows) => lost.or(follows),
        }
    }

    /// A pattern has brought a channel: its position is kept, up to as many as a server brings.
    fn know(&mut self, channel: &str) {
        let is_full = self.channels.len() - self.asked >= MATCHED_CHANNELS_PER_CLIENT_MAX;
        if !is_full && !self.indices.contains_key(channel) {
            self.indices.insert(channel.to_owned(), self.channels.len());
            self.channels.push(Subscription::new(channel.to_owned(), Begin::Live, None));
        }
    }

    /// A pattern is answered: channels that were asked for by their names are left to it.
    fn give_back(&mut self, answer: &Answer<'_>) {
        let Some(pattern) = answer.text("pattern") else { return };
        for brought in &mut self.channels[self.asked..] {
            if brought.is_borrowed && matches(&pattern, &brought.channel) {
                brought.is_borrowed = false;
                let mut request = br#"{"type":"unsubscribe","channel":"#.to_vec();
                write_string(&mut request, &brought.channel);
                request.push(b'}');
                self.requests.push(request);
            }
        }
    }

    /// The server has ended a pattern.
    fn ended<'a>(&mut self, answer: &Answer<'_>) -> Option<Heard<'a>> {
        let (pattern, reason) = (answer.text("pattern")?, answer.text("reason")?);
        let known = self.of(&pattern)?;
        known.is_refused = true;
        Some(Heard { note: Some(format!("{pattern}: {reason}")), is_refused: true, message: None })
    }

    fn error<'a>(&mut self, answer: &Answer<'_>) -> Heard<'a> {
        let reason = answer.text("reason").or_else(|| answer.text("code")).unwrap_or_default();
        let index = answer.number("id").and_then(|id| usize::try_from(id).ok());
        if index.is_some_and(|index| index >= self.asked) {
            // Its pattern brings it back, without what was missed.
            return Heard::default();
        }
        match index.and_then(|index| self.channels.get_mut(index)) {
            // Not asked for again: it would be refused again.
            Some(refused) => {
                refused.is_refused = true;
                let note = Some(format!("{}: {reason}", refused.channel));
                Heard { note, is_refused: true, message: None }
            }
            None => Heard::note(reason),
        }
    }
}

impl Subscription {
    fn new(channel: String, begin: Begin, position: Option<Position>) -> Self {
        Self { channel, begin, position, is_refused: false, is_borrowed: false }
    }

    fn request(&self, index: usize) -> Vec<u8> {
        let mut request = br#"{"type":"subscribe","id":"#.to_vec();
        write_number(&mut request, index as u64);
        request.extend_from_slice(br#","channel":"#);
        write_string(&mut request, &self.channel);
        match (&self.position, &self.begin) {
            (Some(position), _) => {
                request.extend_from_slice(br#","since":{"epoch":"#);
                write_string(&mut request, &position.epoch);
                request.extend_from_slice(br#","seq":"#);
                write_number(&mut request, position.seq);
                request.push(b'}');
            }
            (None, Begin::Latest) => request.extend_from_slice(br#","since":"latest""#),
            (None, Begin::Last(count)) => {
                request.extend_from_slice(br#","since":{"last":"#);
                write_number(&mut request, u64::from(*count));
                request.push(b'}');
            }
            (None, Begin::Live | Begin::After(_)) => {}
        }
        request.push(b'}');
        request
    }
}

/// Says that numbers are missing, if they are any.
fn missing(channel: &str, from: u64, to: u64, why: &str) -> Option<String> {
    (from <= to).then(|| format!("{channel}: {} missing ({why})", numbers(from, to)))
}

fn numbers(from: u64, to: u64) -> String {
    match from == to {
        true => format!("{from} is"),
        false => format!("{from} to {to} are"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(epoch: &str, seq: u64, rest: &str) -> String {
        format!(
            r#"{{"type":"subscribed","id":0,"channel":"a","epoch":"{epoch}","seq":{seq}{rest}}}"#
        )
    }

    fn message(seq: u64) -> String {
        format!(r#"{{"type":"message","channel":"a","seq":{seq},"payload":{{"n":{seq}}}}}"#)
    }

    fn covering(from: u64, seq: u64) -> String {
        format!(
            r#"{{"type":"message","channel":"a","seq":{seq},"from":{from},"payload":{{"n":{seq}}}}}"#
        )
    }

    fn gap(from: u64, to: u64) -> String {
        format!(
            r#"{{"type":"gap","channel":"a","from":{from},"to":{to},"reason":"slow_consumer"}}"#
        )
    }

    /// What comes of a message: its number, and the note.
    fn heard(subscriptions: &mut Subscriptions, text: &str) -> (Option<u64>, String) {
        let heard = subscriptions.hear(text.as_bytes());
        (heard.message.map(|message| message.seq), heard.note.unwrap_or_default())
    }

    fn request(subscriptions: &mut Subscriptions) -> String {
        requests(subscriptions).remove(0)
    }

    fn requests(subscriptions: &mut Subscriptions) -> Vec<String> {
        let requests = subscriptions.requests();
        requests.map(|request| String::from_utf8(request).expect("text")).collect()
    }

    #[test]
    fn each_number_is_handed_on_or_told_as_missing_exactly_once() {
        let mut subscriptions = Subscriptions::new(vec!["a".into()], &Begin::Live);
        for (text, seq, note) in [
            (subscribed("k", 4, ""), None, ""),
            (message(5), Some(5), ""),
            (message(5), None, ""),
            (gap(6, 8), None, "a: 6 to 8 are missing (slow_consumer)"),
            (gap(7, 8), None, ""),
            (message(8), None, ""),
            (message(10), Some(10), "a: 9 is missing (nobody said why)"),
            (gap(12, 13), None, "a: 11 to 13 are missing (slow_consumer)"),
            (message(14), Some(14), ""),
            (covering(15, 18), Some(18), ""),
            (covering(20, 21), Some(21), "a: 19 is missing (nobody said why)"),
            (r#"{"type":"welcome","client":"x"}"#.into(), None, ""),
            ("nonsense".into(), None, ""),
        ] {
            assert_eq!(heard(&mut subscriptions, &text), (seq, note.into()), "{text}");
        }
        assert_eq!(subscriptions.cursor().as_deref(), Some("k.21"));
    }

    #[test]
    fn a_new_connection_goes_on_where_the_last_one_stopped_and_says_what_follows() {
        let anew = |what: &str| {
            format!(
                "a: the server numbers it anew, {what}. What came after 9 in the old numbering is \
                 lost"
            )
        };
        let recovered = r#","recovered":true,"from":10"#;
        let too_old = r#","recovered":false,"reason":"too_old","from":10"#;
        let changed = r#","recovered":false,"reason":"epoch_changed","from":1"#;
        // What a server says that keeps nothing.
        let forgotten = r#","recovered":false"#;
        for (epoch, seq, rest, note, cursor) in [
            ("k", 9, recovered, String::new(), "k.9"),
            ("k", 12, recovered, "a: 10 to 12 are recovered".into(), "k.9"),
            ("k", 10, recovered, "a: 10 is recovered".into(), "k.9"),
            ("k", 40, too_old, "a: of 10 to 40, what is kept follows (too_old)".into(), "k.9"),
            ("k", 12, forgotten, "a: 10 to 12 are missing (not connected)".into(), "k.12"),
            ("l", 7, changed, anew("up to 7 by now; what it keeps of that follows"), "l.0"),
            ("l", 0, changed, anew("and has published nothing since"), "l.0"),
            ("k", 7, changed, anew("up to 7 by now; what it keeps of that follows"), "k.0"),
        ] {
            let mut subscriptions = Subscriptions::new(vec!["a".into()], &Begin::Latest);
            assert_eq!(
                request(&mut subscriptions),
                r#"{"type":"subscribe","id":0,"channel":"a","since":"latest"}"#
            );
            heard(&mut subscriptions, &subscribed("k", 9, r#","recovered":true,"from":9"#));
            assert_eq!(heard(&mut subscriptions, &message(9)), (Some(9), String::new()));
            assert_eq!(
                request(&mut subscriptions),
                r#"{"type":"subscribe","id":0,"channel":"a","since":{"epoch":"k","seq":9}}"#
            );
            let answer = subscribed(epoch, seq, rest);
            assert_eq!(heard(&mut subscriptions, &answer), (None, note), "{answer}");
            assert_eq!(subscriptions.cursor().as_deref(), Some(cursor));
        }
    }

    #[test]
    fn a_subscription_begins_where_it_is_told_to() {
        let channels = || vec!["a".to_owned(), "b".to_owned()];
        let after = Begin::after("a.b.7,-", 2).expect("a cursor");
        for (begin, since) in [
            (Begin::Live, ""),
            (Begin::Last(3), r#","since":{"last":3}"#),
            (after, r#","since":{"epoch":"a.b","seq":7}"#),
        ] {
            let mut subscriptions = Subscriptions::new(channels(), &begin);
            let expected = format!(r#"{{"type":"subscribe","id":0,"channel":"a"{since}}}"#);
            assert_eq!(request(&mut subscriptions), expected);
        }
        let known = Subscriptions::new(channels(), &Begin::after("-,k.9", 2).expect("a cursor"));
        assert_eq!(known.cursor().as_deref(), Some("-,k.9"));
        assert_eq!(Subscriptions::new(channels(), &Begin::Live).cursor(), None);
    }

    #[test]
    fn what_is_no_cursor_is_told() {
        for cursor in ["", "k", "k.", ".5", "k.-5", "k.5,", "k5"] {
            let error = Begin::after(cursor, 1).expect_err(cursor);
            assert!(error.contains("EPOCH.SEQ"), "{error}");
        }
        let error = Begin::after("k.5", 2).expect_err("two channels");
        assert!(error.starts_with("1 positions for 2 channels"), "{error}");
    }

    #[test]
    fn what_a_pattern_brought_goes_on_by_its_own_position_and_is_left_to_the_pattern_again() {
        let mut subscriptions = Subscriptions::new(vec!["m.*".into(), "own".into()], &Begin::Live);
        let watch = r#"{"type":"subscribe","id":0,"channel":"m.*"}"#;
        let own = r#"{"type":"subscribe","id":1,"channel":"own"}"#;
        assert_eq!(requests(&mut subscriptions), [own, watch]);
        let answer = r#"{"type":"subscribed","id":0,"pattern":"m.*","channels":0}"#;
        let begun = |seq: u64| {
            let told = r#"{"type":"subscribed","channel":"m.a","pattern":"m.*","epoch":"k","seq""#;
            format!("{told}:{seq}}}")
        };
        let message = |seq: u64| {
            format!(r#"{{"type":"message","channel":"m.a","seq":{seq},"payload":{seq}}}"#)
        };
        for (text, seq) in [(answer.to_owned(), None), (begun(0), None), (message(1), Some(1))] {
            assert_eq!(heard(&mut subscriptions, &text), (seq, String::new()), "{text}");
        }
        assert!(subscriptions.take_requests().is_empty(), "it is the pattern's");

        // A new connection.
        let resume = r#"{"type":"subscribe","id":2,"channel":"m.a","since":{"epoch":"k","seq":1}}"#;
        assert_eq!(requests(&mut subscriptions), [own, resume, watch]);
        let resumed = r#"{"type":"subscribed","id":2,"channel":"m.a","epoch":"k","seq":3,"recovered":true,"from":2}"#;
        assert_eq!(heard(&mut subscriptions, resumed).1, "m.a: 2 to 3 are recovered");
        assert_eq!(heard(&mut subscriptions, answer), (None, String::new()));
        let leave = br#"{"type":"unsubscribe","channel":"m.a"}"#.to_vec();
        assert_eq!(subscriptions.take_requests(), [leave]);
        for (text, seq) in [(message(2), Some(2)), (begun(2), None), (message(3), Some(3))] {
            assert_eq!(heard(&mut subscriptions, &text), (seq, String::new()), "{text}");
        }

        // Another one, whose server takes no more channels; then the pattern ends.
        requests(&mut subscriptions);
        let refusal = r#"{"type":"error","id":2,"code":"too_many_channels","reason":"no"}"#;
        assert_eq!(heard(&mut subscriptions, refusal), (None, String::new()));
        assert_eq!(
            heard(&mut subscriptions, &begun(5)).1,
            "m.a: 4 to 5 are missing (not connected)"
        );
        let end = br#"{"type":"unsubscribed","pattern":"m.*","code":"x","reason":"too much"}"#;
        let ended = subscriptions.hear(end);
        assert!(ended.is_refused && ended.note.as_deref() == Some("m.*: too much"));
        assert!(!subscriptions.is_empty(), "the channel is still there");
        assert_eq!(subscriptions.cursor(), None, "a pattern has no position");
    }

    #[test]
    fn a_channel_that_was_refused_is_not_asked_for_again() {
        let mut subscriptions = Subscriptions::new(vec!["a".into(), "b".into()], &Begin::Live);
        let refusal = br#"{"type":"error","id":0,"code":"bad_channel","reason":"no such channel"}"#;
        let heard = subscriptions.hear(refusal);
        assert!(heard.is_refused);
        assert_eq!(heard.note.as_deref(), Some("a: no such channel"));
        assert_eq!(subscriptions.requests().count(), 1);
        assert!(!subscriptions.is_empty());
    }
}
