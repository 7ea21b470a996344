//! Bytes to values and back. No sockets, no clock, no `unsafe`.
#![forbid(unsafe_code)]

pub mod dialect;
pub mod envelope;
pub mod events;
pub mod http;
pub mod json;
pub mod msgpack;
pub mod ws;

#[cfg(test)]
mod cuts;
