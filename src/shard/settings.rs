//! What a shard needs to know, proven by `config`.

use std::time::Duration;

use crate::{conn, hub};

/// What a shard needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For its connections.
    pub conn: conn::Settings,
    /// For its hub.
    pub hub: hub::Settings,
    /// Over which a shutdown spreads the good-byes.
    pub drain_window: Duration,
    /// Bytes that what clients send may take while it is incomplete.
    pub held_bytes_max: usize,
}
