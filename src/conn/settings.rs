//! What a connection needs to know, proven by `config`.

use std::time::Duration;

use crate::proto::http::Cors;

/// What a connection needs to know; shared by all connections of a shard.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of one message from the client.
    pub message_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: u64,
    /// Channels that one client may listen to.
    pub channels_per_client_max: usize,
    /// From accept to a complete request head.
    pub handshake_timeout: Duration,
    /// From a request's head to the end of its body and of the answer to it.
    pub request_timeout: Duration,
    /// Silence after which the client is pinged; each client's own is up to a tenth more or less.
    pub ping_interval: Duration,
    /// Silence after a ping that ends the connection.
    pub pong_timeout: Duration,
    /// Time without a message from the client that ends the connection.
    pub idle_timeout: Option<Duration>,
    /// How long the peer may take to finish what we have finished.
    pub close_timeout: Duration,
    /// Whose pages may publish and read answers.
    pub cors: Cors,
    /// Whether messages may come and go compressed.
    pub compression: bool,
    /// Bytes of what a client has said that its next compressed message may refer back to. They are
    /// kept for each client that makes use of it.
    pub compression_window_bytes_max: usize,
    /// Whether `/echo` answers.
    pub echo: bool,
    /// What GET answers, by path.
    pub pages: Vec<Page>,
}

/// A page that GET answers.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The path.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// The page.
    pub body: &'static [u8],
}
