//! The messages of `ringcast.json.v1`: what a client asks and what it is told.
//!
//! [`request`] reads a client's text ([`since`] where it was before), [`reply`] writes what it is
//! told, framed for its door ([`mod@presence`] of who is there), [`channel`] is the rule for a channel's
//! name, and [`pattern`] for names that mean many channels.

pub mod channel;
pub mod pattern;
pub mod presence;
pub mod reply;
pub mod request;
pub mod since;

pub use channel::{CHANNEL_RULE, is_channel};
pub use pattern::has_wildcard;
pub use presence::{
    Presence, PresenceStats, USER_RULE, is_user, presence, presence_event, presence_many,
    presence_stats,
};
pub use reply::{
    Bare, Framed, History, Subscribed, Welcome, ack, covering_message, error, gap, goaway, history,
    matched, message, message_payload, message_prefix, pattern_ended, pong, subscribed,
    subscribed_pattern, unsubscribed_pattern, welcome,
};
pub use request::{Field, Message, NotJson, Parser, Reject, Request};
pub use since::{Since, parse_cursor, parse_cursors, write_cursors};
