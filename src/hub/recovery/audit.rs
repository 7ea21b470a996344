//! The books about those who catch up.

use std::collections::BTreeMap;

use super::{Recoveries, Stage};
use crate::hub::clients::Clients;
use crate::hub::topic::Topics;
use crate::hub::{Audit, ClientId, TopicId};

impl Recoveries {
    /// Checks that everybody who catches up is on its way, and counted. Returns them.
    pub(in crate::hub) fn audit(
        &self,
        clients: &Clients,
        topics: &Topics,
        audit: &mut Audit,
    ) -> Vec<(TopicId, ClientId)> {
        let mut counts: BTreeMap<TopicId, u32> = BTreeMap::new();
        let (mut all, mut asked) = (Vec::new(), 0);
        for (client, recoveries, is_looked_at) in clients.recovering() {
            for recovery in recoveries {
                let topic = recovery.topic;
                audit.recovering += 1;
                audit.recovering_unanswered += u64::from(recovery.promise.is_some());
                let has_wishes = recovery.promise.as_ref().is_some_and(|it| !it.wishes.is_empty());
                audit.recovering_with_wishes += u64::from(has_wishes);
                match recovery.stage {
                    Stage::Due => assert!(
                        self.due.contains(&(client, topic)),
                        "client {client:?} waits for a page and nobody asks for it"
                    ),
                    Stage::Reading => assert!(
                        is_looked_at,
                        "client {client:?} has read its page and nobody looks"
                    ),
                    Stage::Asked => asked += 1,
                }
                *counts.entry(topic).or_default() += 1;
                all.push((topic, client));
            }
        }
        assert!(asked <= self.asked, "pages are counted when they are asked for");
        for (topic, known) in topics.iter() {
            let counted = known.recovering.as_ref().map_or(0, |recovering| recovering.count);
            let there = counts.get(&topic).copied().unwrap_or_default();
            assert_eq!(counted, there, "{} counts those who catch up", known.name);
        }
        all
    }
}
