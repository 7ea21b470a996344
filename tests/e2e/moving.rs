//! A reader that comes through another door every time, and is gone at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use rmpv::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Chance, Client, Event, Heard};
use crate::on_every_setup;
use crate::peer::{Peer, in_json};
use crate::resume::{Known, follow, schedules, since};
use crate::server::{Server, Setup};
use crate::stream::{Stream, poll};

on_every_setup!(
    moving_between_the_doors_at_any_moment_nobody_misses_or_repeats_a_message,
    killed_at_any_moment_and_back_again_through_the_same_door_nobody_misses_or_repeats_a_message,
);

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const QUERY: &str = "channel=a&channel=b&channel=c";
const CONFIG: &str = "[history]\nmessages = 4\nage = \"10m\"\n\
                      [limits]\noutbox_messages_max = 8\n";
/// How long nothing comes before nothing is expected.
const QUIET: Duration = Duration::from_millis(20);

/// The ways to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Json,
    Msgpack,
    Raw,
    Stream,
    Poll,
}

impl Way {
    const ALL: [Self; 5] = [Self::Json, Self::Msgpack, Self::Raw, Self::Stream, Self::Poll];
}

/// One of them, open.
enum Door {
    Json(Box<Client>),
    Msgpack(Box<Peer>),
    /// One channel only.
    Raw(Box<Peer>, &'static str),
    Stream(Stream),
}

/// One who listens now and then.
#[derive(Default)]
struct Reader {
    known: Known,
    /// Through each of the ways.
    heard: [u64; 5],
    lost: u64,
}

pub async fn moving_between_the_doors_at_any_moment_nobody_misses_or_repeats_a_message(
    setup: Setup,
) {
    live(setup, |chance, _| Way::ALL[chance.below(5) as usize]).await;
}

pub async fn killed_at_any_moment_and_back_again_through_the_same_door_nobody_misses_or_repeats_a_message(
    setup: Setup,
) {
    // Who has never been told where a channel begins cannot come by the bare door.
    live(setup, |_, (seed, life)| match Way::ALL[(seed % 5) as usize] {
        Way::Raw if life == 0 => Way::Json,
        way => way,
    })
    .await;
}

/// Lets readers live through all schedules; `choose` says through which door one comes, in which
/// schedule and life.
async fn live(setup: Setup, choose: impl Fn(&mut Chance, (u64, u64)) -> Way) {
    let server = Server::start(setup, CONFIG).await;
    let mut publisher = Client::open(&server).await;
    let mut published: BTreeMap<&str, u64> = CHANNELS.map(|channel| (channel, 0)).into();
    let (mut heard, mut lost) = ([0; 5], 0);
    for seed in 0..schedules() {
        let mut chance = Chance::new(seed);
        let mut reader = Reader { heard, lost, ..Reader::default() };
        for life in 0..4 {
            let way = choose(&mut chance, (seed, life));
            let mut door = reader.come(&server, way, &mut chance).await;
            let will_poll = way == Way::Poll && chance.below(4) > 0;
            let polling = async {
                let cursors = cursors(&reader.known);
                let query = format!("{QUERY}&since={cursors}&timeout=50ms");
                if will_poll { Some(poll(&server, &query).await) } else { None }
            };
            let count = chance.below(25);
            let publishing = async {
                for _ in 0..count {
                    let channel = CHANNELS[chance.below(3) as usize];
                    *published.get_mut(channel).expect("one of them") += 1;
                    publisher.publish(channel, &published[channel].to_string()).await;
                }
            };
            let (answer, ()) = tokio::join!(polling, publishing);
            if let Some(answer) = answer {
                for event in &answer.events {
                    reader.lost += follow_answer(&mut reader.known, event);
                    reader.heard[Way::Poll as usize] += 1;
                }
                place(&mut reader.known, &answer.cursors);
            }
            // It reads some of it, and is gone in the middle of the rest.
            for _ in 0..chance.below(40) {
                let goes_on = match &mut door {
                    Some(door) => reader.read(door).await,
                    None => false,
                };
                if !goes_on {
                    break;
                }
                reader.heard[way as usize] += 1;
            }
        }
        (heard, lost) = (reader.heard, reader.lost);
    }
    assert!(heard.iter().all(|heard| *heard > 30) && lost > 20, "{heard:?} heard, {lost} lost");
}

impl Reader {
    /// Comes in, and asks for everything since it was there.
    async fn come(&self, server: &Server, way: Way, chance: &mut Chance) -> Option<Door> {
        match way {
            Way::Json => {
                let mut client = Client::open(server).await;
                for channel in CHANNELS {
                    let request = match self.known.get(channel) {
                        Some((epoch, seq)) => since(channel, epoch, *seq),
                        None => format!(r#""type":"subscribe","channel":"{channel}""#),
                    };
                    client.say(format!(r#"{{"id":"{channel}",{request}}}"#)).await;
                }
                Some(Door::Json(Box::new(client)))
            }
            Way::Msgpack => {
                let mut peer = Peer::msgpack(server).await;
                for channel in CHANNELS {
                    let mut members: Vec<(&str, Value)> = vec![
                        ("type", "subscribe".into()),
                        ("id", 1.into()),
                        ("channel", channel.into()),
                    ];
                    if let Some((epoch, seq)) = self.known.get(channel) {
                        let since = vec![
                            ("epoch".into(), epoch.as_str().into()),
                            ("seq".into(), (*seq).into()),
                        ];
                        members.push(("since", Value::Map(since)));
                    }
                    peer.say_map(members).await;
                }
                Some(Door::Msgpack(Box::new(peer)))
            }
            Way::Raw => {
                let channel = CHANNELS[chance.below(3) as usize];
                let (epoch, seq) = self.known.get(channel)?;
                let path = format!("/raw/{channel}?since={epoch}.{seq}");
                let peer = Peer::open(server, &path, "ringcast.raw.v1").await;
                Some(Door::Raw(Box::new(peer), channel))
            }
            Way::Stream => {
                let query = format!("{QUERY}&since={}", cursors(&self.known));
                Some(Door::Stream(Stream::open(server, &query).await))
            }
            Way::Poll => None,
        }
    }

    /// Reads one thing more, if it comes; false when nothing does.
    async fn read(&mut self, door: &mut Door) -> bool {
        let heard = match door {
            Door::Json(client) => match client.event_within(QUIET).await {
                Some(Event::Text(heard)) => Some(heard),
                Some(other) => panic!("{other:?}"),
                None => None,
            },
            Door::Msgpack(peer) => match peer.next_within(QUIET).await {
                Some(Message::Binary(bytes)) => {
                    let value = rmpv::decode::read_value(&mut &bytes[..]).expect("MessagePack");
                    Some(Heard::new(in_json(&value)))
                }
                Some(other) => panic!("{other:?}"),
                None => None,
            },
            Door::Raw(peer, channel) => {
                let message = peer.next_within(QUIET).await;
                return message.is_some_and(|message| self.read_bare(channel, message));
            }
            Door::Stream(stream) => stream.next_within(QUIET).await,
        };
        let Some(heard) = heard else { return false };
        self.lost += follow(&mut self.known, &heard);
        if let Door::Stream(stream) = door {
            assert_cursors(&self.known, &stream.cursors);
        }
        true
    }

    /// A bare payload is the next message, a good-bye says what is lost; false then.
    fn read_bare(&mut self, channel: &str, message: Message) -> bool {
        let (epoch, last) = self.known.get_mut(channel).expect("it has asked to go on");
        match message {
            Message::Text(payload) => {
                *last += 1;
                assert_eq!(payload.as_str(), last.to_string(), "{channel}");
                true
            }
            Message::Close(Some(frame)) => {
                let reason = frame.reason.as_str().to_owned();
                let words: Vec<&str> = reason.split(' ').collect();
                let ["lost", from, "to", to, "of", "epoch", said, _] = words[..] else {
                    panic!("{reason}")
                };
                let to: u64 = to.parse().expect("a number");
                assert_eq!((from.parse(), said), (Ok(*last + 1), epoch.as_str()), "{reason}");
                assert!(to > *last, "{reason}");
                self.lost += to - *last;
                *last = to;
                false
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Where a reader is in all channels.
fn cursors(known: &Known) -> String {
    let cursor = |channel| match known.get(channel) {
        Some((epoch, seq)) => format!("{epoch}.{seq}"),
        None => "-".to_owned(),
    };
    CHANNELS.map(cursor).join(",")
}

/// An event of a poll follows what was known: where the channel begins, nobody says before it.
fn follow_answer(known: &mut Known, event: &Heard) -> u64 {
    if matches!(event.kind(), "message" | "gap") && !known.contains_key(event.str("channel")) {
        let name = CHANNELS.into_iter().find(|name| *name == event.str("channel"));
        let first = event.number(if event.kind() == "gap" { "from" } else { "seq" });
        known.insert(name.expect("one of them"), (String::new(), first - 1));
    }
    if event.kind() == "subscribed" {
        assert_eq!(event.str("reason"), "too_old", "{}", event.text);
    }
    follow(known, event)
}

/// The cursors of an answer say what its events said, and where the other channels are.
fn place(known: &mut Known, cursors: &str) {
    for (channel, cursor) in CHANNELS.into_iter().zip(cursors.split(',')) {
        let (epoch, seq) = cursor.split_once('.').expect("a cursor");
        let seq: u64 = seq.parse().expect("a number");
        match known.get_mut(channel) {
            Some((known_epoch, known_seq)) => {
                assert_eq!(*known_seq, seq, "{channel} in {cursors}");
                epoch.clone_into(known_epoch);
            }
            None => {
                known.insert(channel, (epoch.to_owned(), seq));
            }
        }
    }
}

/// The id of an event says what is known: of the channels that have been told, at least.
fn assert_cursors(known: &Known, cursors: &str) {
    for (channel, cursor) in CHANNELS.into_iter().zip(cursors.split(',')) {
        if let Some((epoch, seq)) = known.get(channel) {
            let is_told = cursor != "-";
            assert!(!is_told || cursor == format!("{epoch}.{seq}"), "{channel} in {cursors}");
        }
    }
}
