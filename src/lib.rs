//! # ringcast
//!
//! A push server for embedded Linux edge hardware: one process holds hundreds of thousands of
//! WebSocket clients and pushes messages to them without losing track of any.
//!
//! ## The journey of one message
//!
//! ```text
//! kernel buffer --recv--> conn --event--> shard --> hub.publish --> outbox[i] --flush--> send --> kernel
//!  (borrowed, unmasked in place)     (one match)  (encoded once)    (a reference)
//! ```
//!
//! Bytes come in at one side, walk forward through nouns, and leave at the other side; nothing
//! walks back.
//!
//! ## The journey of somebody who was away
//!
//! ```text
//! subscribe since 120 --> hub.recover --letter--> home: history --page--> outbox --> ... --> live
//! ```
//!
//! Each page is asked for when the last one has left, and the one that reaches the newest message
//! brings the client among the subscribers: a client that is behind is a position, not a queue.
//!
//! ## The journey of a channel to come
//!
//! ```text
//! subscribe iot.*.temp --> hub.watch --letter--> every home: trie, and those there are --> answer
//! publish iot.7.temp --> home: begins --trie--> shards that watch --> clients follow --> message
//! ```
//!
//! A pattern becomes ordinary subscriptions when a channel begins; a message meets no pattern.
//!
//! ## The journey of somebody who comes and goes
//!
//! ```text
//! subscribe --> hub.presence: ann +1 --letter--> home: list --grace, interval--> message to presence:room
//! ```
//!
//! The list is asked for with a request; who comes and goes is told by messages like any others.
//!
//! ## The layers, bottom up
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | ground | [`limits`] [`mem`] [`simd`] [`time`] [`metrics`] | no domain word |
//! | words | [`proto`] | bytes and values; no sockets, no clock, no `unsafe` |
//! | machines | [`conn`] [`hub`] | one client's life; who receives what. `now` is an argument |
//! | world | [`io`] | system calls; nearly all `unsafe` |
//! | loop | [`shard`] | both machines and world, and introduces them once per tick |
//! | house | [`config`] [`control`] [`admin`] [`cli`] [`web`] | everything around it |
//!
//! Imports go downward only; `conn` and `hub` do not know each other. A test checks it
//! (`tests/structure.rs`), together with where `unsafe` may stand and who may read a clock.
//!
//! ## Reading order
//!
//! `proto::ws::decoder`, `conn`, `hub::outbox`, `hub`, `hub::recovery`, `io` (the contract), `shard`.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod limits;
pub mod mem;
pub mod metrics;
pub mod simd;
pub mod time;

pub mod proto;

pub mod conn;
pub mod hub;

pub mod io;

pub mod shard;

pub mod admin;
pub mod cli;
pub mod config;
pub mod control;
pub mod web;
