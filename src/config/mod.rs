//! What an operator decides, proven once. After [`Config`] exists nobody validates again.
//!
//! Reading order: this page (the values and their defaults), then `keys` (the one table of
//! names; `channels` has those of a `[[channel]]`), `raw` (how people write them; `nearest` is for
//! names they misspell), `value` (how a value is read), `prove` (from one to the other, all problems
//! together), `plan` (the memory they cost), `example` (the file that shows every key).

pub mod channels;
pub mod example;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod keys;
mod nearest;
pub mod plan;
mod prove;
pub mod raw;
mod value;

pub use crate::hub::{ChannelRule, Overflow, Rule};
pub use crate::proto::http::Cors;
pub use plan::{Line, MemoryPlan};
pub use prove::{Problem, Problems, prove};
pub use value::{Size, Span, Value};

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::hub::Rules;

/// Shards that are started without being asked for. Each costs about 6 MiB before the first client
/// comes (receive buffers, ring, mailboxes); a workstation's CPUs would cost more than its clients.
pub const SHARDS_DEFAULT_MAX: usize = 32;

/// Everything the server needs to know, proven.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect. Never open to the world by accident: loopback until told otherwise.
    pub listen: SocketAddr,
    /// Where the operator looks (`/metrics`, `/healthz`, `/readyz`); `None` for no admin listener.
    pub admin: Option<SocketAddr>,
    /// One thread, ring and listener each. Default: one for each CPU this process may use, up to
    /// [`SHARDS_DEFAULT_MAX`].
    pub shards: usize,
    /// Whether each shard's thread is bound to a CPU of its own.
    pub pin: bool,
    /// How sockets are driven.
    pub driver: DriverKind,
    /// How the io_uring driver keeps its sockets.
    pub descriptors: Descriptors,
    /// Whether `/echo` answers: for conformance suites and benchmarks only.
    pub echo: bool,
    /// Whose pages may use the doors, beside those of the server itself.
    pub cors: Cors,
    /// Whether messages are compressed for clients that offer permessage-deflate (RFC 7692).
    pub compression: bool,
    /// How hard is tried, from 1 to 9. Level 2 was measured to take 10 to 15 us for a message of up
    /// to 1 KiB and to leave a third of 1 KiB of JSON; level 1 is twice as fast and leaves a third
    /// more; level 6 takes up to twice as long for 5 % less.
    pub compression_level: u32,
    /// How much of everything.
    pub limits: Limits,
    /// How long things may take.
    pub timing: Timing,
    /// What each client's socket gets.
    pub socket: SocketOptions,
    /// How messages of channels are treated that no `[[channel]]` matches.
    pub rule: Rule,
    /// Rules by channel name; the first that matches decides.
    pub channels: Vec<ChannelRule>,
    /// What is logged and how.
    pub log: Log,
}

/// Bounds an operator may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message from a client, after reassembly (64 KiB; Centrifugo 64 KiB, NATS
    /// 1 MiB). A client that sends more is closed with 1009.
    pub message_bytes_max: usize,
    /// Bytes of a publish's whole body, however many messages it has. Nothing is set aside for it:
    /// it bounds how long one request can go on.
    pub body_bytes_max: u64,
    /// Connections in the whole process; beyond it a peer gets 503 with Retry-After.
    pub connections_max: usize,
    /// Connections from one address; beyond it a peer gets 429. `None`: no such limit.
    pub connections_per_address_max: Option<usize>,
    /// Channels one client may be subscribed to.
    pub channels_per_client_max: usize,
    /// Channels the whole process keeps numbering for.
    pub channels_max: usize,
    /// Messages queued for one client that does not read.
    pub outbox_messages_max: usize,
    /// Bytes queued for one client that does not read.
    pub outbox_bytes_max: usize,
    /// Bytes kept of what a client said in compressed messages, so that its next ones can refer
    /// back to them; `None`: each stands alone. 4 KiB hold the last few messages of a publisher,
    /// and so nearly all that there is to gain.
    pub compression_window_bytes_max: Option<usize>,
    /// Bytes the whole process may hold: the one ceiling over everything that can grow.
    pub memory_max: u64,
}

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From accept to a complete request head.
    pub handshake_timeout: Duration,
    /// From the head of a publish over HTTP to the end of its answer.
    pub request_timeout: Duration,
    /// Silence after which a client is pinged (jittered per client). Proxies cut at 60 s.
    pub ping_interval: Duration,
    /// Silence after a ping that ends the connection. Any received byte is life.
    pub pong_timeout: Duration,
    /// Time without a message from the client that ends it; `None`: a listener may listen for ever.
    pub idle_timeout: Option<Duration>,
    /// From our close frame to the peer's.
    pub close_timeout: Duration,
    /// Over which a shutdown spreads the good-byes.
    pub drain_window: Duration,
}

/// What each client's socket gets; set on the listener, where sockets inherit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// SO_SNDBUF, in bytes as given to the kernel (which doubles it). What a slow client can pin
    /// in the kernel. `None` leaves the kernel's autotuning, up to `tcp_wmem`.
    pub send_buffer_bytes: Option<usize>,
    /// TCP_NOTSENT_LOWAT: unsent bytes above which the socket counts as full, so that what is
    /// old waits in the outbox, where it can be dropped, and not in the kernel.
    pub notsent_lowat_bytes: Option<usize>,
    /// The listener's backlog.
    pub backlog: i32,
}

/// How sockets are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring where the kernel has it and allows it, epoll elsewhere; logged either way.
    Auto,
    /// io_uring or a clear refusal to start.
    Uring,
    /// epoll.
    Epoll,
}

/// How the io_uring driver keeps its sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptors {
    /// Direct ones when `connections_max` is beyond what RLIMIT_NOFILE allows, else regular.
    Auto,
    /// In the process's descriptor table: visible to `ss -p`, can move between shards everywhere.
    Regular,
    /// In each ring's own table: not counted against the process's descriptor table.
    Direct,
}

/// What is logged and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// Nothing below this level.
    pub level: tracing::Level,
}

/// Text for people or JSON for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))),
            shards: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(SHARDS_DEFAULT_MAX),
            pin: true,
            driver: DriverKind::Auto,
            descriptors: Descriptors::Auto,
            echo: false,
            cors: Cors::Off,
            compression: true,
            compression_level: 2,
            limits: Limits::default(),
            timing: Timing::default(),
            socket: SocketOptions::default(),
            rule: Rule::default(),
            channels: Vec::new(),
            log: Log { format: LogFormat::Text, level: tracing::Level::INFO },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024,
            body_bytes_max: 64 * 1024 * 1024,
            connections_max: 100_000,
            connections_per_address_max: None,
            channels_per_client_max: 128,
            channels_max: 100_000,
            outbox_messages_max: 256,
            outbox_bytes_max: 64 * 1024,
            compression_window_bytes_max: Some(4 * 1024),
            memory_max: 1024 * 1024 * 1024,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            idle_timeout: None,
            close_timeout: Duration::from_secs(5),
            drain_window: Duration::from_secs(30),
        }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { send_buffer_bytes: None, notsent_lowat_bytes: Some(128 * 1024), backlog: 4096 }
    }
}

impl Config {
    /// How messages are treated, by channel.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules { rules: self.channels.clone(), default: self.rule.clone() }
    }
}
