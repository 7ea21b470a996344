//! At the memory ceiling the worst offenders give way, until a tenth is free again.

use super::Shard;
use super::admission::TRY_AGAIN;
use crate::conn::EndReason;
use crate::hub::{ClientId, Way};
use crate::io::Driver;
use crate::time::Time;

/// RFC 6455, IANA registry: 1013 is "try again later".
const CLOSE_TRY_AGAIN_LATER: u16 = 1013;

impl<D: Driver> Shard<D> {
    /// Sees to it that neither what waits for clients nor what they have not finished sending
    /// takes more than its share of the memory.
    pub(super) fn relieve(&mut self, now: Time) {
        if self.hub.is_overloaded() {
            self.give_up_waiting(now);
        }
        if self.held_bytes > self.settings.held_bytes_max {
            self.give_up_incomplete(now);
        }
    }

    /// What waits for clients that do not read: queues become gaps, and whoever leaves replies or
    /// half a message unread is cut off, because a close frame would only wait behind them.
    fn give_up_waiting(&mut self, now: Time) {
        for burden in self.hub.burdens() {
            if self.hub.is_relieved() {
                break;
            }
            match burden.way {
                Way::Shed(client) => self.hub.shed(client),
                Way::CutOff(client) => self.break_off(now, client, EndReason::MemoryCeiling),
                Way::Forget(topic) => self.hub.give_up_history(topic),
            }
        }
    }

    /// What clients have sent of messages and request heads that are not complete.
    fn give_up_incomplete(&mut self, now: Time) {
        let mut holders: Vec<(u32, ClientId)> = self
            .conns
            .iter()
            .filter(|(_, connection)| connection.held_bytes > 0)
            .map(|(client, connection)| (connection.held_bytes, client))
            .collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        for (_, client) in holders {
            if self.held_bytes <= self.settings.held_bytes_max / 10 * 9 {
                break;
            }
            let Some(connection) = self.conns.get_mut(client) else { continue };
            if connection.conn.is_open() {
                let why =
                    (EndReason::MemoryCeiling, "the server is at its memory ceiling (memory_max)");
                self.close(now, client, CLOSE_TRY_AGAIN_LATER, why);
            } else if !connection.conn.is_closing() {
                self.turn_away(now, client, TRY_AGAIN, EndReason::MemoryCeiling);
            }
            if let Some(connection) = self.conns.get_mut(client) {
                connection.conn.abandon(now, &self.settings.conn);
            }
            self.account_held(client);
        }
    }
}
