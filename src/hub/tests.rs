//! The hub as its clients see it: what is gathered for them is read with a client's decoder.

mod dialects;
mod formats;
mod mesh;
mod single;
pub(crate) mod wire;
mod world;
