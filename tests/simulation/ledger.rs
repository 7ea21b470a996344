//! What is true in a world: every message that was ever published, and what was said of it.

use std::collections::{BTreeMap, BTreeSet};

/// What the server's clock leaves out, twice.
const CLOCK_US: u64 = 2_000;

/// Everything that was published, over all lives of all channels.
#[derive(Debug, Default)]
pub struct Ledger {
    publications: Vec<Publication>,
    /// Publications that were said again.
    again: u64,
    numberings: BTreeMap<(String, String), Numbering>,
    /// How far each channel's present numbering has come, by what its home says.
    homes: BTreeMap<String, (String, u64)>,
    /// By channel and user: when it was surely there, and when it was told to have left.
    presence: BTreeMap<(String, String), (BTreeSet<u64>, BTreeSet<u64>)>,
}

/// One life of a channel.
#[derive(Debug, Default)]
struct Numbering {
    /// Which message has which number, as subscribers saw it.
    seen: BTreeMap<u64, usize>,
    /// When the home had come how far.
    progress: Vec<(u64, u64)>,
    /// The highest number that was acknowledged, of messages that somebody saw.
    acked: u64,
}

/// One message, as its publisher sent it.
#[derive(Debug)]
struct Publication {
    channel: String,
    /// The connection it came through; messages of one keep their order.
    publisher: u64,
    /// When it was said first.
    at: u64,
    bytes: usize,
    /// It was said a second time; the first time may have been taken.
    is_repeated: bool,
    fate: Fate,
    seen: Option<(String, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not answered: it may or may not be taken.
    Unknown,
    Acked {
        seq: u64,
        at: u64,
    },
    Refused,
}

impl Ledger {
    /// Somebody publishes; returns the payload, which says which message it is.
    pub fn publish(
        &mut self,
        channel: &str,
        publisher: u64,
        bytes: usize,
        now: u64,
    ) -> (usize, String) {
        let number = self.publications.len();
        let (channel, fate) = (channel.to_owned(), Fate::Unknown);
        self.publications.push(Publication {
            channel,
            publisher,
            at: now,
            bytes,
            is_repeated: false,
            fate,
            seen: None,
        });
        (number, payload(number, bytes))
    }

    /// Somebody says a publication again that it has no answer to, on another connection; returns
    /// its channel and payload.
    pub fn publish_again(&mut self, publication: usize) -> (String, String) {
        self.again += 1;
        let known = &mut self.publications[publication];
        known.is_repeated = true;
        // It may have its number already, or get it only now: in no order with others.
        known.publisher = u64::MAX - self.again;
        (known.channel.clone(), payload(publication, known.bytes))
    }

    /// Its publisher is told the number.
    pub fn acked(&mut self, publication: usize, channel: &str, seq: u64, now: u64) {
        let Publication { channel: meant, fate, seen, .. } = &mut self.publications[publication];
        assert_eq!(meant, channel, "an ack names the channel of its message");
        assert_eq!(*fate, Fate::Unknown, "a message is answered once");
        assert!(
            seen.as_ref().is_none_or(|(_, seen)| *seen == seq),
            "publication {publication} is acked as {seq} and was delivered as {seen:?}"
        );
        *fate = Fate::Acked { seq, at: now };
        if let Some((epoch, _)) = seen {
            let place = (channel.to_owned(), epoch.clone());
            let acked = &mut self.numberings.get_mut(&place).expect("it was seen").acked;
            *acked = seq.max(*acked);
        }
    }

    /// Its publisher is told that it was not taken.
    pub fn refused(&mut self, publication: usize) {
        let Publication { fate, seen, is_repeated, .. } = &mut self.publications[publication];
        assert_eq!(*fate, Fate::Unknown, "a message is answered once");
        if *is_repeated {
            return;
        }
        assert_eq!(*seen, None, "publication {publication} was refused and delivered");
        *fate = Fate::Refused;
    }

    /// A subscriber receives it; returns which publication it is.
    pub fn delivered(&mut self, channel: &str, epoch: &str, seq: u64, said: &str) -> usize {
        let number = said.strip_prefix(r#"{"p":"#).and_then(|rest| rest.split_once(','));
        let publication: usize = number
            .and_then(|(digits, _)| digits.parse().ok())
            .unwrap_or_else(|| panic!("{channel} {seq}: nobody published {said:?}"));
        let known = &mut self.publications[publication];
        assert_eq!(said, payload(publication, known.bytes), "a payload keeps its bytes");
        assert_eq!(known.channel, channel, "a message stays in its channel");
        assert_ne!(
            known.fate,
            Fate::Refused,
            "publication {publication} was refused and delivered"
        );
        if let Fate::Acked { seq: acked, .. } = known.fate {
            assert_eq!(acked, seq, "publication {publication} was acked with another number");
        }
        let place = (epoch.to_owned(), seq);
        let seen = known.seen.get_or_insert_with(|| place.clone());
        assert_eq!(*seen, place, "publication {publication} was delivered with two numbers");
        let numbering = self.numberings.entry((channel.to_owned(), epoch.to_owned())).or_default();
        if matches!(known.fate, Fate::Acked { .. }) {
            numbering.acked = seq.max(numbering.acked);
        }
        let there = *numbering.seen.entry(seq).or_insert(publication);
        assert_eq!(there, publication, "{channel} {seq} is one message for all");
        publication
    }

    /// When message `seq` had its number.
    pub fn numbered_at(&self, channel: &str, epoch: &str, seq: u64) -> u64 {
        let progress = &self.numberings[&(channel.to_owned(), epoch.to_owned())].progress;
        let first = progress.partition_point(|(_, reached)| *reached < seq);
        progress.get(first).expect("what was delivered has a number").0
    }

    /// The newest message of each key that is known to be of the present life of `channel`; not of a key
    /// that a newer message may have of which nobody has heard.
    pub fn newest_of_keys(&self, channel: &str) -> BTreeMap<Option<usize>, u64> {
        let mut newest = BTreeMap::new();
        let Some((epoch, last)) = self.homes.get(channel) else { return newest };
        let numbering = &self.numberings[&(channel.to_owned(), epoch.clone())];
        let began = numbering.progress.first().map_or(u64::MAX, |(began, _)| *began);
        let (mut known, mut unheard_of) = (BTreeSet::new(), BTreeSet::new());
        for (number, publication) in self.publications.iter().enumerate() {
            if publication.channel != channel {
                continue;
            }
            let seq = match (&publication.seen, publication.fate) {
                (Some((seen, seq)), _) if seen == epoch => *seq,
                // What was said in this life has its number of no life before.
                (None, Fate::Acked { seq, .. }) if publication.at > began => seq,
                (None, Fate::Unknown | Fate::Acked { .. }) => {
                    unheard_of.insert(key(number));
                    continue;
                }
                _ => continue,
            };
            known.insert(seq);
            let place = newest.entry(key(number)).or_default();
            *place = seq.max(*place);
        }
        let unknown = (1..=*last).rev().find(|seq| !known.contains(seq)).unwrap_or(0);
        newest.retain(|key, seq| *seq > unknown || !unheard_of.contains(key));
        newest
    }

    /// A channel's home says how far its numbering has come. True when it has begun anew.
    pub fn home(&mut self, channel: &str, epoch: &str, seq: u64, now: u64) -> bool {
        let mut anew = false;
        if let Some((known, before)) = self.homes.get_mut(channel)
            && known == epoch
        {
            if *before == seq {
                return false;
            }
            assert!(seq > *before, "numbers rise");
            *before = seq;
        } else {
            let before = self.homes.insert(channel.to_owned(), (epoch.to_owned(), seq));
            anew = before.is_some();
        }
        let numbering = self.numberings.entry((channel.to_owned(), epoch.to_owned())).or_default();
        numbering.progress.push((now, seq));
        anew
    }

    /// The life of `channel` and its last number, by its home.
    pub fn last(&self, channel: &str) -> Option<(&str, u64)> {
        self.homes.get(channel).map(|(epoch, seq)| (epoch.as_str(), *seq))
    }

    /// Channels in whose present numbering something has been published after `since`.
    pub fn published_since(&self, since: u64) -> impl Iterator<Item = &String> {
        self.homes.iter().filter_map(move |(channel, (epoch, seq))| {
            let numbering = self.numberings.get(&(channel.clone(), epoch.clone()))?;
            let (at, _) = numbering.progress.last()?;
            (*at > since && *seq > 0).then_some(channel)
        })
    }

    /// Whether message `seq` had its number by the time `at`.
    pub fn was_numbered_by(&self, channel: &str, epoch: &str, seq: u64, at: u64) -> bool {
        let numbering = self.numberings.get(&(channel.to_owned(), epoch.to_owned()));
        let progress = numbering.map_or(&[][..], |numbering| &numbering.progress);
        let first = progress.partition_point(|(_, reached)| *reached < seq);
        progress.get(first).is_none_or(|(when, _)| *when <= at)
    }

    /// Messages of `channel` from `seq` on have not been passed on to every shard that they have to reach.
    pub fn is_on_its_way(&self, channel: &str, epoch: &str, seq: u64) {
        let numbering = self.numberings.get(&(channel.to_owned(), epoch.to_owned()));
        let acked = numbering.map_or(0, |numbering| numbering.acked);
        assert!(acked < seq, "{channel} {acked} was acknowledged, and from {seq} on they wait");
    }

    /// The highest number of a message of `channel` in this life that was acknowledged before
    /// `before`.
    pub fn last_acked_before(&self, channel: &str, epoch: &str, before: u64) -> Option<u64> {
        let acked = self.publications.iter().filter_map(|publication| match publication.fate {
            Fate::Acked { seq, at } if at < before && publication.channel == channel => {
                let life = publication.seen.as_ref().map(|(epoch, _)| epoch.as_str());
                (life == Some(epoch)).then_some(seq)
            }
            _ => None,
        });
        acked.max()
    }

    /// `user` was in `channel` at the time `at`, so it may come back for so long.
    pub fn was_there(&mut self, channel: &str, user: &str, at: u64, grace_us: u64) {
        let (there, left) = self.presence_of(channel, user);
        there.insert(at);
        let told = left.range(at..).next().filter(|told| **told + CLOCK_US < at + grace_us);
        assert_eq!(told, None, "{user} was in {channel} at {at}, and was soon told to have left");
    }

    /// It was told at the time `at` that `user` had left `channel`.
    pub fn was_told_to_leave(&mut self, channel: &str, user: &str, at: u64, grace_us: u64) {
        let (there, left) = self.presence_of(channel, user);
        left.insert(at);
        let known = there.range(..=at).next_back().filter(|seen| at + CLOCK_US < **seen + grace_us);
        assert_eq!(known, None, "{user} was told at {at} to have left {channel}, and was there");
    }

    fn presence_of(&mut self, channel: &str, user: &str) -> &mut (BTreeSet<u64>, BTreeSet<u64>) {
        self.presence.entry((channel.to_owned(), user.to_owned())).or_default()
    }

    /// Checks what can be seen only from the end.
    pub fn close(&self) {
        for ((channel, epoch), numbering) in &self.numberings {
            let mut last: BTreeMap<u64, usize> = BTreeMap::new();
            for (seq, publication) in &numbering.seen {
                let publisher = self.publications[*publication].publisher;
                let before = last.insert(publisher, *publication);
                assert!(
                    before.is_none_or(|before| before < *publication),
                    "{channel} {epoch} {seq}: the messages of one publisher keep their order"
                );
            }
        }
    }

    /// Messages published.
    pub const fn published(&self) -> usize {
        self.publications.len()
    }
}

/// The value of the member `k` of a payload, if it has one.
pub fn key(number: usize) -> Option<usize> {
    Some(number % 5).filter(|key| *key < 4)
}

/// A payload of about `bytes` that says which message it is, with bytes that nobody may touch.
fn payload(number: usize, bytes: usize) -> String {
    const FILL: [&str; 4] = ["x", "\u{e9}", "\\u00e9", "\\\""];
    let fill = FILL[number % FILL.len()].repeat(bytes / FILL[number % FILL.len()].len());
    let key = key(number).map_or_else(String::new, |key| format!(r#", "k":{key} "#));
    format!(r#"{{"p":{number},"x":"{fill}"{key},"big":123456789012345678901234567890, "z":-0.0}}"#)
}
