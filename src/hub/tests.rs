//! The hub as its clients see it: what is gathered for them is read with a client's decoder.

mod conflation;
mod dialects;
mod formats;
mod leaving;
mod mesh;
mod patterns;
mod presence;
mod single;
mod stale;
pub(crate) mod wire;
mod world;
