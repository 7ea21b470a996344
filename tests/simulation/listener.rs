//! Somebody who listens over HTTP: what it asks for, and what it must hear.

use crate::account::{Account, Position, Since};
use crate::ledger::Ledger;
use crate::reached::{Reached, Situation};

/// One request to listen.
#[derive(Debug)]
pub struct Listening {
    pub is_stream: bool,
    /// The channels in the order they were named, and where each goes on.
    channels: Vec<(String, Option<Since>)>,
    /// The server has said that it ends the stream, and why.
    pub is_accused: bool,
}

impl Listening {
    /// Chooses what to listen to, knowing what `account` knows.
    pub fn choose(random: &mut fastrand::Rng, channels: &[String], account: &Account) -> Self {
        let mut channels = channels.to_vec();
        random.shuffle(&mut channels);
        channels.truncate(random.usize(1..=4));
        let since = |random: &mut fastrand::Rng, channel: &String| match account.left(channel) {
            Some(position) if random.u8(..8) > 0 => Some(Since::After(position.clone())),
            _ if random.u8(..4) == 0 => Some(Since::Last(1)),
            _ => None,
        };
        let is_stream = random.bool();
        let channels = channels.into_iter().map(|channel| {
            let since = since(random, &channel);
            (channel, since)
        });
        Self { is_stream, channels: channels.collect(), is_accused: false }
    }

    /// The connection has ended. A stream is told why, unless nobody would have read it: for want of
    /// memory, or of a peer that reads (`is_excused`).
    pub fn ended(&self, is_draining: bool, is_excused: bool) {
        let is_told = self.is_accused || is_draining || is_excused;
        assert!(!self.is_stream || is_told, "a stream ended and nobody said why");
    }

    /// Whether it is a stream that goes on.
    pub fn is_alive(&self) -> bool {
        self.is_stream && !self.is_accused
    }

    /// The request; some say who they are.
    pub fn request(&self, random: &mut fastrand::Rng, user: Option<&str>) -> String {
        let names = self.channels.iter().map(|(name, _)| format!("channel={name}"));
        let names: Vec<_> = names.chain(user.map(|user| format!("user={user}"))).collect();
        let cursors: Vec<_> = self.channels.iter().map(|(_, since)| cursor(since)).collect();
        let (query, cursors) = (names.join("&"), cursors.join(","));
        if !self.is_stream {
            let timeout = random.choice(["0s", "50ms", "1s", "20s"]).expect("one of them");
            let query = format!("{query}&since={cursors}&timeout={timeout}");
            return format!("GET /poll?{query} HTTP/1.1\r\nHost: sim\r\n\r\n");
        }
        if random.bool() {
            return format!("GET /sse?{query}&since={cursors} HTTP/1.1\r\nHost: sim\r\n\r\n");
        }
        format!("GET /sse?{query} HTTP/1.1\r\nHost: sim\r\nLast-Event-ID: {cursors}\r\n\r\n")
    }

    /// Where it says that it is in `channel`.
    pub fn since(&self, channel: &str) -> Option<&Since> {
        let known = self.channels.iter().find(|(name, _)| name == channel);
        let (_, since) = known.unwrap_or_else(|| panic!("nobody asked for {channel}"));
        since.as_ref()
    }

    /// An event of a stream, which says where all channels are behind it.
    pub fn hear_event(
        &mut self,
        account: &mut Account,
        id: &str,
        text: &str,
        now: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
    ) {
        assert!(!self.is_accused, "nothing follows the last word: {text}");
        if text.starts_with(r#"{"type":"error""#) {
            let is_known = ["slow_consumer", "try_again_later"].iter().any(|it| text.contains(it));
            assert!(is_known, "{text}");
            self.is_accused = true;
            reached.count(Situation::StreamAccused);
            return;
        }
        account.hear_listened(self, text, now, ledger, reached);
        reached.count(Situation::StreamEvent);
        for ((channel, _), cursor) in self.channels.iter().zip(self.split(id)) {
            // Where it is may be known before it is told.
            if let Some(Position { epoch, seq }) = account.position(channel) {
                assert_eq!(cursor, format!("{epoch}.{seq}"), "{channel} in {id}, behind {text}");
            }
        }
    }

    /// The answer to a poll.
    pub fn hear_answer(
        &self,
        account: &mut Account,
        cursors: &str,
        events: &[String],
        now: u64,
        ledger: &mut Ledger,
        reached: &mut Reached,
    ) {
        reached.count(match events {
            [] => Situation::PollAnsweredEmpty,
            _ => Situation::PollAnswered,
        });
        let cursors: Vec<_> = self.split(cursors).into_iter().map(position).collect();
        let told = |channel: &str| {
            let name = format!(r#""channel":"{channel}""#);
            let of_it: Vec<_> = events.iter().filter(|event| event.contains(&name)).collect();
            let first = of_it.iter().find(|event| !event.starts_with(r#"{"type":"goaway""#));
            first.map(|first| first.to_string())
        };
        for ((channel, since), end) in self.channels.iter().zip(&cursors) {
            let begin = match (told(channel), since) {
                // It says itself where it begins.
                (Some(first), _) if first.starts_with(r#"{"type":"subscribed""#) => continue,
                (_, Some(Since::After(position))) => position.clone(),
                (None, _) => end.clone(),
                (Some(first), _) => Position { epoch: end.epoch.clone(), seq: before(&first) },
            };
            account.follow(channel, begin);
        }
        for event in events {
            account.hear_listened(self, event, now, ledger, reached);
        }
        for ((channel, _), end) in self.channels.iter().zip(&cursors) {
            let known = account.position(channel);
            assert_eq!(known.as_ref(), Some(end), "{channel}: the next poll goes on there");
        }
    }

    fn split<'c>(&self, cursors: &'c str) -> Vec<&'c str> {
        let split: Vec<_> = cursors.split(',').collect();
        assert_eq!(split.len(), self.channels.len(), "a cursor for each channel: {cursors}");
        split
    }
}

fn cursor(since: &Option<Since>) -> String {
    match since {
        Some(Since::After(Position { epoch, seq })) => format!("{epoch}.{seq}"),
        Some(Since::Last(_)) => "latest".to_owned(),
        None => "-".to_owned(),
    }
}

fn position(cursor: &str) -> Position {
    let (epoch, seq) = cursor.split_once('.').unwrap_or_else(|| panic!("no cursor: {cursor}"));
    Position { epoch: epoch.to_owned(), seq: seq.parse().expect("a number") }
}

/// The message before the first one that `event` is about.
fn before(event: &str) -> u64 {
    let head = event.split_once(r#","payload":"#).map_or(event, |(head, _)| head);
    // A gap says so, and a message that stands for several.
    let first = head.split_once(r#""from":"#).or_else(|| head.split_once(r#""seq":"#));
    let (_, rest) = first.unwrap_or_else(|| panic!("{event}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().expect("a piece");
    digits.parse::<u64>().expect("a number") - 1
}
