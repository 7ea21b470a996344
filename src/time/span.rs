//! A duration as people write it, shown.

use std::fmt;
use std::time::Duration;

/// A duration, shown in the largest unit that leaves no fraction: what can be written in the
/// configuration, and by a client.
#[derive(Debug, Clone, Copy)]
pub struct Span(
    /// How long.
    pub Duration,
);

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => out.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(out, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(out, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => write!(out, "{}s", ms / 1000),
            _ => write!(out, "{ms}ms"),
        }
    }
}
