//! A client looks at what a channel keeps, without being subscribed to it: a page at a time, each in
//! one answer.

use super::history::{History, Page};
use super::letter::{Delivery, Letter, Refusal, Request};
use super::recall::Part;
use super::topic::State;
use super::{ClientId, Epoch, Hub, RequestId, ShardIndex};
use crate::limits::{HISTORY_PAGE_MESSAGES_MAX, RECALL_PAGE_BYTES_MAX};
use crate::proto::envelope;
use crate::proto::ws::frame::{FrameHeader, Role};
use crate::time::Time;

/// Which messages are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Browse {
    /// From this number on, or from the oldest one that is kept.
    pub from: Option<u64>,
    /// At most so many; fewer where a page has no more room.
    pub limit: Option<u32>,
}

/// A page of what is kept.
#[derive(Debug)]
pub struct Kept {
    /// The life of the numbering.
    pub(super) epoch: Epoch,
    /// The newest message.
    pub(super) seq: u64,
    /// Whether newer messages are kept than those of this page.
    pub(super) has_more: bool,
    /// The messages.
    pub(super) parts: Vec<Part>,
}

impl Hub {
    /// `client` asks what is kept of `channel`. The answer follows, when the home has answered.
    ///
    /// # Errors
    /// When the channel cannot be had.
    pub fn browse(
        &mut self,
        client: ClientId,
        id: Option<&[u8]>,
        channel: &str,
        browse: Browse,
        now: Time,
    ) -> Result<(), Refusal> {
        self.check_presence(channel)?;
        let home = self.topics.home(channel);
        let (shard, id) = (self.settings.shard, id.map(Into::into));
        if home == shard {
            let kept = self.kept(channel, browse, now)?;
            self.tell_kept(client, id, channel, kept);
            return Ok(());
        }
        let request = Request::Browse { channel: channel.into(), shard, client, id, browse };
        self.letters.push((home, Letter::Request(request)));
        Ok(())
    }

    /// Another shard's request, heard at the channel's home.
    pub(super) fn answer_browse(
        &mut self,
        channel: Box<str>,
        (shard, client): (ShardIndex, ClientId),
        id: Option<RequestId>,
        browse: Browse,
        now: Time,
    ) {
        let answer = self.kept(&channel, browse, now);
        let answer = Delivery::Kept { client, id, channel, answer };
        self.letters.push((shard, Letter::Delivery(answer)));
    }

    /// What the home of `channel` keeps of it.
    fn kept(&mut self, channel: &str, browse: Browse, now: Time) -> Result<Kept, Refusal> {
        let topic = self.home(channel, now)?;
        self.freeze(topic, now);
        let known = self.topics.get_mut(topic).expect("found or made just now");
        let State::Attached { epoch, seq } = known.state else {
            unreachable!("a home is attached to itself")
        };
        let history = known.home.as_mut().and_then(|home| home.history.as_mut());
        let runs = history.map_or_else(Vec::new, |history| {
            history.trim(now);
            let first = history.first_seq().unwrap_or(seq + 1);
            let from = browse.from.unwrap_or(first).max(first);
            if from <= seq { page_of(history, from, browse.limit) } else { Vec::new() }
        });
        let last = runs.last().map_or(seq, |run| run.segment.seq(run.end - 1));
        let parts = runs.iter().map(Part::of).collect();
        self.tidy(topic, now);
        Ok(Kept { epoch, seq, has_more: last < seq, parts })
    }

    /// The answer.
    pub(super) fn tell_kept(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        channel: &str,
        kept: Kept,
    ) {
        let Kept { epoch, seq, has_more, parts } = kept;
        let told = envelope::History { channel, epoch: epoch.as_str(), seq, has_more };
        self.clients.write_reply(client, |replies| {
            let bodies = parts.iter().flat_map(bodies);
            envelope::history(replies, id.as_deref(), &told, bodies);
        });
    }
}

fn page_of(history: &History, from: u64, limit: Option<u32>) -> Vec<super::segment::Run> {
    let messages = limit.unwrap_or(HISTORY_PAGE_MESSAGES_MAX).min(HISTORY_PAGE_MESSAGES_MAX);
    history.recall(from, Page { messages, bytes: RECALL_PAGE_BYTES_MAX })
}

/// The objects in the frames of `part`.
fn bodies(part: &Part) -> impl Iterator<Item = &[u8]> {
    (part.first..part.end).map(|index| {
        let frame = part.frame(index);
        let header = FrameHeader::parse(frame, Role::Client).expect("we wrote it");
        let (_, header_bytes) = header.expect("we wrote all of it");
        &frame[header_bytes..]
    })
}
