//! What a shard tells the house about itself.

use crate::conn::EndReason;
use crate::hub::Format;
use crate::metrics::{Depths, Number};
use crate::proto::http::Refusal;

/// The doors beside the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `POST /publish`.
    Publish,
    /// `GET /sse`.
    Sse,
    /// `GET /poll`.
    Poll,
}

impl Door {
    /// Their stable labels, in the order of their values.
    pub const NAMES: [&'static str; 3] = ["publish", "sse", "poll"];
}

/// The numbers of one shard: written by it, read by anybody.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sockets there are now.
    pub connections: Number,
    /// Clients there are now: open WebSockets, and who listens over HTTP.
    pub clients: Number,
    /// Peers accepted.
    pub accepted: Number,
    /// Accepted peers passed on to a lighter shard.
    pub handed_over: Number,
    /// Times that accepting failed for want of descriptors or memory.
    pub accept_failures: Number,
    /// Handshakes done.
    pub handshakes_ok: Number,
    /// Requests refused, by [`Refusal::index`].
    pub refused: [Number; Refusal::NAMES.len()],
    /// Requests taken that are no WebSocket, by [`Door`].
    pub requests: [Number; Door::NAMES.len()],
    /// Clients whose life ended, by reason.
    pub ended: [Number; EndReason::ALL.len()],
    /// Messages received from clients.
    pub messages_in: Number,
    /// Requests answered with an error.
    pub errors: Number,
    /// Messages given a `seq`.
    pub publishes: Number,
    /// Messages encoded, by [`Format`].
    pub encoded: [Number; Format::ALL.len()],
    /// Messages delivered, one for each receiver.
    pub deliveries: Number,
    /// Messages lost under `drop_oldest`.
    pub dropped_oldest: Number,
    /// Messages lost under `drop_newest`.
    pub dropped_newest: Number,
    /// Messages lost at the memory ceiling.
    pub dropped_memory: Number,
    /// Messages lost because they were too old.
    pub dropped_stale: Number,
    /// Gap notices sent.
    pub gaps: Number,
    /// Bytes received.
    pub bytes_in: Number,
    /// Bytes sent.
    pub bytes_out: Number,
    /// Sends.
    pub sends: Number,
    /// Messages left waiting in a full socket's outbox after a send.
    pub outbox_depth: Depths,
    /// Clients whose socket is full now.
    pub blocked: Number,
    /// Channels at home here now.
    pub channels: Number,
    /// Subscriptions there are now.
    pub subscriptions: Number,
    /// Users on lists of channels at home here now.
    pub users: Number,
    /// Connections that are counted there now.
    pub connections_present: Number,
    /// Bytes of these lists.
    pub presence_bytes: Number,
    /// Bytes of shared messages alive.
    pub segments_bytes: Number,
    /// Bytes of replies that wait.
    pub replies_bytes: Number,
    /// Bytes kept of incomplete messages.
    pub held_bytes: Number,
    /// Letters sent to other shards.
    pub letters_sent: Number,
    /// Letters heard.
    pub letters_heard: Number,
    /// Letters that found a mailbox full.
    pub letters_shelved: Number,
    /// Turns of the loop.
    pub ticks: Number,
    /// Share of a CPU used lately, in thousandths.
    pub load_permille: Number,
    /// Whether the shard rests: it has nothing to do until something happens.
    pub resting: Number,
}
