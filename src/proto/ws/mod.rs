//! RFC 6455, WebSocket, as values, and RFC 7692, its compression.
//!
//! Reading order: [`handshake`] turns an HTTP request into an upgrade; [`frame`] is the header
//! on the wire, both ways; [`decoder`] pulls whole messages out of a receive buffer; [`utf8`]
//! and [`close`] are the two rules of their own; [`violation`] lists every way a peer can break
//! the protocol, with the close code it earns and the section it broke. [`extension`] and
//! [`deflate`] are RFC 7692: messages that come and go compressed.

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod utf8;
pub mod violation;

pub use decoder::{Decoder, Event};
pub use frame::{FrameHeader, Opcode, Role};
pub use violation::Violation;
