//! An outbox's own books.

use std::collections::BTreeMap;

use super::{Capacity, Entry, Outbox};
use crate::hub::segment::Run;
use crate::hub::{Audit, TopicId};

impl Outbox {
    /// Checks what holds of every outbox between ticks, and counts its situation into `audit`.
    /// Returns what the queue says of each topic: the first and last `seq`.
    pub(in crate::hub) fn audit(
        &self,
        capacity: Capacity,
        audit: &mut Audit,
    ) -> BTreeMap<TopicId, (u64, u64)> {
        self.check();
        let runs = self.runs().count();
        let first = self.runs().next();
        let is_one_segment = self.runs().all(|run| {
            first.is_some_and(|first| {
                std::ptr::eq(&raw const *run.segment, &raw const *first.segment)
            })
        });
        assert!(
            (self.messages <= capacity.messages && self.bytes <= capacity.bytes) || is_one_segment,
            "an outbox holds {} messages and {} bytes, beyond its bounds",
            self.messages,
            self.bytes
        );
        let mut told: BTreeMap<TopicId, (u64, u64)> = BTreeMap::new();
        let (mut gaps, mut runs_before) = (0, 0);
        for entry in &self.queue {
            let (topic, from, to) = match entry {
                Entry::Run(run) => {
                    assert!(run.messages() > 0, "an empty run waits");
                    runs_before += 1;
                    (run.segment.topic, run.segment.from(run.first), run.segment.seq(run.end - 1))
                }
                Entry::Gap(gap) => {
                    assert!(gap.from <= gap.to, "an empty gap waits");
                    audit.gap_behind_gap += u64::from(gaps > 0);
                    audit.gap_behind_message += u64::from(runs_before > 0);
                    audit.gap_before_message += u64::from(runs > runs_before);
                    audit.gap_merged += u64::from(gap.to > gap.from);
                    audit.lost_untold += gap.to - gap.from + 1;
                    gaps += 1;
                    (gap.topic, gap.from, gap.to)
                }
            };
            let said = told.entry(topic).or_insert((from, from - 1));
            assert_eq!(from, said.1 + 1, "what waits of one channel has no hole and no overlap");
            said.1 = to;
        }
        audit.backlog += u64::from(runs > 0);
        audit.channels_mixed += u64::from(told.len() > 1);
        audit.message_begun += u64::from(self.cut.is_some());
        audit.replies_behind_message_begun +=
            u64::from(self.cut.is_some() && self.replies_bytes() > 0);
        audit.replies_begun += u64::from(self.replies_released > 0);
        told
    }

    /// The segments that this outbox keeps alive, with repetitions: where they are and how large.
    pub(in crate::hub) fn segments(&self) -> impl Iterator<Item = (usize, usize)> {
        let cut = self.cut.as_ref().map(|cut| &cut.segment);
        self.runs().map(|run| &run.segment).chain(cut).flat_map(|segment| segment.audit())
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.queue.iter().filter_map(|entry| match entry {
            Entry::Run(run) => Some(run),
            Entry::Gap(_) => None,
        })
    }
}
