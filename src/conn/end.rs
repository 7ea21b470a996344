//! Why a client's life ended: a closed list, for logs and metrics.

/// Why a client's life ended. A normal good-bye is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// A request was answered, as it was asked.
    Answered,
    /// Drained: the server goes away.
    Drained,
    /// The peer asked for something over HTTP that is not an upgrade, and was refused.
    HandshakeRefused,
    /// No complete request head in time.
    HandshakeTimeout,
    /// No message for the idle timeout.
    IdleTimeout,
    /// A message that is not a JSON object, or not a MessagePack map, or no JSON at all.
    Malformed,
    /// At the memory ceiling, and this client held the most.
    MemoryCeiling,
    /// A page was served.
    PageServed,
    /// The peer said good-bye: with a close frame, or by hanging up on what it listened to.
    PeerClosed,
    /// The connection broke (reset, timed out).
    PeerReset,
    /// The peer ended without a close frame.
    PeerVanished,
    /// Silence after a ping.
    PongTimeout,
    /// What it asked for is not done, and its dialect has no word for that.
    Refused,
    /// A request's body did not come in time.
    RequestTimeout,
    /// The server is full.
    ServerFull,
    /// A channel's rule closes clients that do not keep up, or its dialect cannot tell of a gap.
    SlowConsumer,
    /// A message of a kind or size that is not taken.
    UnacceptableMessage,
    /// A publish was not answered in time.
    Unanswered,
    /// A rule of RFC 6455 was broken.
    Violation,
}

impl EndReason {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 19] = [
        Self::Answered,
        Self::Drained,
        Self::HandshakeRefused,
        Self::HandshakeTimeout,
        Self::IdleTimeout,
        Self::Malformed,
        Self::MemoryCeiling,
        Self::PageServed,
        Self::PeerClosed,
        Self::PeerReset,
        Self::PeerVanished,
        Self::PongTimeout,
        Self::Refused,
        Self::RequestTimeout,
        Self::ServerFull,
        Self::SlowConsumer,
        Self::UnacceptableMessage,
        Self::Unanswered,
        Self::Violation,
    ];

    /// Its stable label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Drained => "drained",
            Self::HandshakeRefused => "handshake_refused",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Malformed => "malformed",
            Self::MemoryCeiling => "memory_ceiling",
            Self::PageServed => "page_served",
            Self::PeerClosed => "peer_closed",
            Self::PeerReset => "peer_reset",
            Self::PeerVanished => "peer_vanished",
            Self::PongTimeout => "pong_timeout",
            Self::Refused => "refused",
            Self::RequestTimeout => "request_timeout",
            Self::ServerFull => "server_full",
            Self::SlowConsumer => "slow_consumer",
            Self::UnacceptableMessage => "unacceptable_message",
            Self::Unanswered => "unanswered",
            Self::Violation => "violation",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EndReason;

    #[test]
    fn each_reason_stands_at_its_own_index() {
        for (index, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }
}
