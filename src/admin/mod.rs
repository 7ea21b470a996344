//! The pages for the operator, as pure functions of a [`Snapshot`]: who serves them, and how
//! the numbers were collected, is for others.
//!
//! Reading order: [`Snapshot`], [`page`], then `numbers` (the metrics page).

mod numbers;

use std::time::SystemTime;

use crate::metrics::DEPTH_BOUNDS;

/// What is known of the process at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// When the process started.
    pub started_at: SystemTime,
    /// Whether every shard is listening.
    pub ready: bool,
    /// Whether a shutdown is under way.
    pub draining: bool,
    /// Whether every shard still moves. The control thread, which watches them, fills it in.
    pub alive: bool,
    /// Which driver was chosen.
    pub driver: Driver,
    /// What each shard counted, in the order of their numbers.
    pub shards: Vec<ShardNumbers>,
    /// The memory plan: name of the line, bytes.
    pub plan: Vec<(&'static str, u64)>,
    /// What the kernel accounts to this process, where it tells.
    pub process: Option<ProcessNumbers>,
}

/// Which driver was chosen: `io::Description` without its notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driver {
    /// "uring" or "epoll".
    pub name: &'static str,
    /// "direct" or "regular".
    pub descriptors: &'static str,
}

/// What the kernel accounts to this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessNumbers {
    /// Seconds of CPU time, user and system.
    pub cpu_seconds: f64,
    /// Bytes of memory that are really there.
    pub resident_bytes: u64,
}

/// What one shard counted since it started. The number of labels is fixed by the code,
/// never by what clients do.
#[derive(Debug, Clone, Default)]
pub struct ShardNumbers {
    /// Connections now, in any phase.
    pub connections: u64,
    /// Clients now: open WebSockets, and who listens over HTTP.
    pub clients: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Times that accepting failed for want of descriptors or memory.
    pub accept_failures: u64,
    /// Accepted connections passed to a lighter shard.
    pub handed_over: u64,
    /// Handshakes that opened a WebSocket.
    pub handshakes_ok: u64,
    /// Handshakes that did not, by reason.
    pub handshakes_failed: Vec<(&'static str, u64)>,
    /// Requests taken that are no WebSocket, by door.
    pub requests: Vec<(&'static str, u64)>,
    /// Connections whose life ended, by reason.
    pub ended: Vec<(&'static str, u64)>,
    /// Messages from clients.
    pub messages_in: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Messages published to channels whose home is this shard.
    pub publishes: u64,
    /// Messages encoded, by form: once each, however many receive them.
    pub encoded: Vec<(&'static str, u64)>,
    /// Messages given to subscribers.
    pub deliveries: u64,
    /// Messages not given to a subscriber whose outbox was full, by the policy that decided.
    pub dropped: Vec<(&'static str, u64)>,
    /// Gap notices sent.
    pub gaps: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Sends submitted to the kernel.
    pub sends: u64,
    /// How many messages were left waiting when a socket was full after a send: the buckets of
    /// [`DEPTH_BOUNDS`] (not cumulated) ...
    pub outbox_depth: [u64; DEPTH_BOUNDS.len() + 1],
    /// ... and the sum of all observations.
    pub outbox_depth_sum: u64,
    /// Clients with a backlog now.
    pub backlogged: u64,
    /// Channels whose home is this shard now.
    pub channels: u64,
    /// Subscriptions of this shard's clients now.
    pub subscriptions: u64,
    /// Users on the lists of this shard's channels now.
    pub presence_users: u64,
    /// Connections that are counted there.
    pub presence_connections: u64,
    /// Bytes held now, by line of the memory plan.
    pub memory: Vec<(&'static str, u64)>,
    /// Share of the last moments spent working, in thousandths.
    pub load_permille: u64,
    /// Turns of the loop.
    pub ticks: u64,
    /// Letters sent to other shards.
    pub letters_sent: u64,
    /// Letters received from other shards.
    pub letters_received: u64,
    /// Times another shard's mailbox was full.
    pub mailbox_full: u64,
}

/// One answer to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP's status code.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The page. The server leaves it away for HEAD.
    pub body: String,
}

impl Response {
    fn text(status: u16, line: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }
}

/// The pages there are, for who lost the way.
const PAGES: &str = "/metrics, /healthz and /readyz are here";

/// The answer to `method` on `path`.
#[must_use]
pub fn page(method: &str, path: &str, snapshot: &Snapshot) -> Response {
    // RFC 9110 15.5.6: the resource is there, the method is not. One that is not there has no
    // methods either, so the path decides first.
    let known = matches!(path, "/metrics" | "/healthz" | "/readyz");
    if known && !matches!(method, "GET" | "HEAD") {
        return Response::text(405, "only GET and HEAD are answered here");
    }
    match path {
        "/metrics" => Response {
            status: 200,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body: numbers::encode(snapshot),
        },
        // Alive: restarting the process would not help. Ready: new clients may be sent here.
        "/healthz" if snapshot.alive => Response::text(200, "ok"),
        "/healthz" => Response::text(503, "a shard does not move"),
        "/readyz" if snapshot.draining => Response::text(503, "draining"),
        "/readyz" if !snapshot.ready => Response::text(503, "starting"),
        "/readyz" => Response::text(200, "ready"),
        _ => Response::text(404, PAGES),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn snapshot() -> Snapshot {
        let mut one = ShardNumbers {
            connections: 3,
            accepted: 7,
            handshakes_failed: vec![("bad_request", 2), ("not_found", 0)],
            requests: vec![("publish", 4)],
            encoded: vec![("json", 9), ("json_deflate", 4)],
            dropped: vec![("drop_oldest", 5)],
            bytes_out: 4096,
            load_permille: 250,
            outbox_depth_sum: 70,
            memory: vec![("messages", 512)],
            ..ShardNumbers::default()
        };
        one.outbox_depth[0] = 4;
        one.outbox_depth[10] = 1;
        Snapshot {
            started_at: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000),
            ready: true,
            draining: false,
            alive: true,
            driver: Driver { name: "uring", descriptors: "direct" },
            shards: vec![one, ShardNumbers::default()],
            plan: vec![("connections", 1 << 20)],
            process: Some(ProcessNumbers { cpu_seconds: 1.5, resident_bytes: 1 << 22 }),
        }
    }

    #[test]
    fn readiness_says_why_not() {
        let mut now = snapshot();
        assert_eq!(page("GET", "/readyz", &now), Response::text(200, "ready"));
        now.ready = false;
        assert_eq!(page("GET", "/readyz", &now), Response::text(503, "starting"));
        now.draining = true;
        assert_eq!(page("GET", "/readyz", &now), Response::text(503, "draining"));
        assert_eq!(page("GET", "/healthz", &now), Response::text(200, "ok"));
        now.alive = false;
        assert_eq!(page("GET", "/healthz", &now).status, 503);
    }

    #[test]
    fn what_is_not_here_gets_404_and_what_is_not_read_gets_405() {
        let now = snapshot();
        for (method, path, status) in [
            ("GET", "/", 404),
            ("GET", "/metrics/", 404),
            ("POST", "/", 404),
            ("POST", "/metrics", 405),
            ("DELETE", "/readyz", 405),
            ("HEAD", "/metrics", 200),
        ] {
            assert_eq!(page(method, path, &now).status, status, "{method} {path}");
        }
    }
}
