//! The messages of `ringcast.json.v1`: what a client asks and what it is told.
//!
//! [`request`] reads a client's text ([`since`] where it was before), [`reply`] writes whole WebSocket frames, [`channel`] is
//! the rule for a channel's name.

pub mod channel;
pub mod reply;
pub mod request;
pub mod since;

pub use channel::is_channel;
pub use reply::{
    History, Subscribed, Welcome, ack, error, gap, goaway, history, message, message_prefix, pong,
    subscribed, welcome,
};
pub use request::{Field, Message, NotJson, Parser, Reject, Request};
pub use since::Since;
