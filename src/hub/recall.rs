//! A channel's home answers those who were away: how far the numbering has come, what is gone,
//! and a page of what is kept.
//!
//! The answer travels on the line that carries the channel's messages, in order with them. So the
//! shard that hears it has heard every message up to [`Recalled::seq`] and none after it: a client
//! that joins with that answer misses nothing and sees nothing twice.

use super::history::{History, Page};
use super::letter::{Delivery, Letter};
use super::segment::{Frames, Run};
use super::topic::State;
use super::{ClientId, Epoch, GapReason, Hub, ShardIndex, TopicId};
use crate::proto::envelope::Since;
use crate::time::Time;

/// Where a client wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// Behind message `seq`. Without an epoch it is one that no home has.
    After {
        /// The life that `seq` is of.
        epoch: Option<Epoch>,
        /// The last message the client has.
        seq: u64,
    },
    /// With the last so many messages.
    Last(u32),
}

impl From<Since<'_>> for Recall {
    fn from(since: Since<'_>) -> Self {
        match since {
            Since::After { epoch, seq } => Self::After { epoch: Epoch::parse(epoch), seq },
            Since::Last(count) => Self::Last(count),
        }
    }
}

/// The home's answer to a [`Recall`], without the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recalled {
    /// The life of the numbering.
    pub epoch: Epoch,
    /// The newest message.
    pub seq: u64,
    /// The first one that the client does not have.
    pub from: u64,
    /// The first one that can be had; what is between is gone.
    pub kept: u64,
    /// Why something is gone, if it is.
    pub lost: Option<GapReason>,
}

/// Some messages of a history, on their way to another shard.
#[derive(Debug)]
pub struct Part {
    /// What they are part of.
    pub(super) frames: Frames,
    /// The first one, by index.
    pub(super) first: u32,
    /// The one after the last.
    pub(super) end: u32,
}

impl Part {
    pub(super) fn of(run: &Run) -> Self {
        Self { frames: run.segment.frames().clone(), first: run.first, end: run.end }
    }

    /// The frame of the message at `index`.
    pub(super) fn frame(&self, index: u32) -> &[u8] {
        let end = |index: u32| self.frames.ends[index as usize] as usize;
        let start = index.checked_sub(1).map_or(0, end);
        &self.frames.bytes[start..end(index)]
    }
}

/// Who is to hear the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// On which shard.
    pub shard: ShardIndex,
    /// What that shard calls the channel.
    pub topic: TopicId,
    /// Which client.
    pub client: ClientId,
    /// Which of its recoveries.
    pub ticket: u32,
}

impl Hub {
    /// Another shard's request, heard at the channel's home.
    pub(super) fn answer_recall(
        &mut self,
        channel: &str,
        asker: Asker,
        recall: Recall,
        page: Page,
        now: Time,
    ) {
        // An asking shard is attached, so the channel lives; unless it has just let go of it.
        let Some(topic) = self.topics.find(channel) else { return };
        let (recalled, runs) = self.recall(topic, recall, page, now);
        let parts = runs.iter().map(Part::of).collect();
        let Asker { shard, topic, client, ticket } = asker;
        let answer = Delivery::Recalled { topic, client, ticket, recalled, parts };
        self.letters.push((shard, Letter::Delivery(answer)));
    }

    /// What the home `topic` has for somebody who was away, as much as `page` allows.
    pub(super) fn recall(
        &mut self,
        topic: TopicId,
        recall: Recall,
        page: Page,
        now: Time,
    ) -> (Recalled, Vec<Run>) {
        // What was published before is heard before the answer.
        self.freeze(topic, now);
        let known = self.topics.get_mut(topic).expect("who asks has just looked at it");
        let State::Attached { epoch, seq } = known.state else {
            unreachable!("a home is attached to itself")
        };
        let home = known.home.as_mut().expect("only homes are asked");
        if let Some(history) = &mut home.history {
            history.trim(now);
        }
        let kept = home.history.as_ref().and_then(History::first_seq).unwrap_or(seq + 1);
        let recalled = placed(recall, epoch, seq, kept, |seq| {
            home.history.as_ref().map_or(GapReason::TooOld, |history| history.reason(seq))
        });
        let runs = match &home.history {
            Some(history) if recalled.kept <= seq => history.recall(recalled.kept, page),
            _ => Vec::new(),
        };
        (recalled, runs)
    }
}

/// Where `recall` begins in a numbering that has come to `seq`, of which what is from `first` on
/// is kept.
fn placed(
    recall: Recall,
    epoch: Epoch,
    seq: u64,
    first: u64,
    reason: impl Fn(u64) -> GapReason,
) -> Recalled {
    let (from, foreign) = match recall {
        Recall::After { epoch: Some(known), seq: had } if known == epoch && had <= seq => {
            (had + 1, false)
        }
        // Of another life of the channel, or beyond what there is: everything is new to it.
        Recall::After { .. } => (1, true),
        Recall::Last(count) => {
            let wanted = (seq + 1).saturating_sub(u64::from(count)).max(1);
            let from = wanted.max(first);
            let lost = (from > wanted).then(|| reason(from - 1));
            return Recalled { epoch, seq, from, kept: from, lost };
        }
    };
    let kept = from.max(first);
    let lost = match foreign {
        true => Some(GapReason::EpochChanged),
        false => (kept > from).then(|| reason(kept - 1)),
    };
    Recalled { epoch, seq, from, kept, lost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_away_is_told_where_it_goes_on_and_what_is_gone() {
        let epoch = Epoch::parse("k3x9k3x9").expect("eight letters");
        let other = Epoch::parse("zzzzzzzz");
        let after = |epoch, seq| Recall::After { epoch, seq };
        let lost = Some(GapReason::TooOld);
        // The numbering has come to 20, and 11..=20 are kept.
        for (recall, expected) in [
            (after(Some(epoch), 20), (21, 21, None)),
            (after(Some(epoch), 15), (16, 16, None)),
            (after(Some(epoch), 10), (11, 11, None)),
            (after(Some(epoch), 9), (10, 11, lost)),
            (after(Some(epoch), 0), (1, 11, lost)),
            (after(Some(epoch), 21), (1, 11, Some(GapReason::EpochChanged))),
            (after(other, 15), (1, 11, Some(GapReason::EpochChanged))),
            (after(None, 15), (1, 11, Some(GapReason::EpochChanged))),
            (Recall::Last(0), (21, 21, None)),
            (Recall::Last(1), (20, 20, None)),
            (Recall::Last(10), (11, 11, None)),
            (Recall::Last(11), (11, 11, lost)),
        ] {
            let Recalled { from, kept, lost, .. } =
                placed(recall, epoch, 20, 11, |_| GapReason::TooOld);
            assert_eq!((from, kept, lost), expected, "{recall:?}");
        }
        // Everything that there ever was is kept.
        let all = placed(Recall::Last(100), epoch, 20, 1, |_| GapReason::TooOld);
        assert_eq!((all.from, all.kept, all.lost), (1, 1, None));
        // Nothing is kept.
        let none = placed(after(Some(epoch), 15), epoch, 20, 21, |_| GapReason::Limit);
        assert_eq!((none.from, none.kept, none.lost), (16, 21, Some(GapReason::Limit)));
    }
}
