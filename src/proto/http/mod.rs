//! HTTP/1.1 as far as a push server needs it: a request head read and what it asks for, a body
//! read, a response written.
//!
//! [`request`], [`percent`], [`query`] and [`body`] read, [`response`] writes, [`refusal`] says no, [`cors`]
//! knows whose pages may ask. Connections are not kept alive: a request either becomes a
//! WebSocket or is answered once.

pub mod body;
pub mod cors;
pub mod percent;
pub mod query;
pub mod refusal;
pub mod request;
pub mod response;

pub use body::{Body, Framing, Piece};
pub use cors::{Cors, Origin, write_preflight};
pub use refusal::{Manner, Refusal, write_refusal};
pub use request::{HeaderSlots, Request, head_end, is_hopeless, parse_request};
pub use response::{Head, write_chunk, write_continue, write_last_chunk, write_response};
