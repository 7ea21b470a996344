//! RFC 6455, WebSocket, as values.
//!
//! Reading order: [`handshake`] turns an HTTP request into an upgrade; [`frame`] is the header
//! on the wire, both ways; [`decoder`] pulls whole messages out of a receive buffer; [`utf8`]
//! and [`close`] are the two rules of their own; [`violation`] lists every way a peer can break
//! the protocol, with the close code it earns and the section it broke.

pub mod close;
pub mod decoder;
pub mod frame;
pub mod handshake;
pub mod utf8;
pub mod violation;

pub use decoder::{Decoder, Event};
pub use frame::{FrameHeader, Opcode, Role};
pub use violation::Violation;
