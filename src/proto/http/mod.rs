//! HTTP/1.1 as far as a push server needs it: a request head read, a short response written.
//!
//! [`request`] reads, [`response`] writes, [`refusal`] says no. Connections are not kept alive:
//! a request either becomes a WebSocket or is answered once.

pub mod refusal;
pub mod request;
pub mod response;

pub use refusal::{Refusal, write_refusal};
pub use request::{HeaderSlots, Request, head_end, is_hopeless, parse_request};
pub use response::write_response;
