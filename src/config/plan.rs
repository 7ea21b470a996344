//! What the configuration costs in memory, line by line, before anything is started.
//!
//! Everything that can grow is in one of these lines, and their sum is `memory_max`: the fixed
//! part is what the other limits ask for, and messages get what remains.

use std::fmt;

use super::Config;
use super::value::Size;
use crate::limits;

/// The program itself: code that is touched, allocator, control thread, stacks of the shards.
const PROGRAM_BYTES: u64 = 6 << 20;

/// Stack that a shard's thread really touches.
const STACK_BYTES: u64 = 128 << 10;

/// Receive buffers of one shard, shared by all its clients: half a tick of receives. When all are
/// in use the kernel waits for the next tick.
pub const RECEIVE_BUFFERS_PER_SHARD: u64 = 256;

/// Bytes of one receive buffer: what a telemetry client sends at once.
pub const RECEIVE_BUFFER_BYTES: u64 = 16 * 1024;

/// Submission entries (64 bytes each) of one shard's ring.
pub const SUBMISSION_ENTRIES: u64 = 1024;

/// Completion entries (16 bytes each) of one shard's ring.
pub const COMPLETION_ENTRIES: u64 = 8 * 1024;

/// What one connection costs in the tables of driver, shard, hub and wheel while it is idle: 200
/// to 260 bytes of resident memory were measured with one subscription on either driver, and each
/// further one takes about 24; the rest is for pages and lists that are half full.
pub const CONNECTION_BYTES: u64 = 512;

/// What one shard needs to compress and to inflate, as zlib-rs takes it: two compressors (262 and
/// 248 KiB: hash table, symbols, what is to be written, window), one that inflates (48 KiB), and a
/// buffer of each.
const COMPRESSION_BYTES: u64 = 704 << 10;

/// What one channel costs while nobody publishes: name, prefix, numbering, table entries.
pub const CHANNEL_BYTES: u64 = 512;

/// What an idle TCP socket costs the kernel: `sock` (2.3 KiB), inode, dentry, file and a poll
/// (0.3 KiB), as slabinfo shows them on Linux 6.
const KERNEL_CONNECTION_BYTES: u64 = 4096;

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// A stable name, used as a label of metrics.
    pub name: &'static str,
    /// How much.
    pub bytes: u64,
    /// How that was calculated.
    pub how: String,
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What is set aside by the limits, then `messages`: what remains.
    pub lines: Vec<Line>,
    /// What the kernel holds for us beside that; estimates, not counted in `memory_max`.
    pub kernel: Vec<Line>,
    /// The ceiling the plan is for.
    pub memory_max: u64,
    /// Below this, messages could not flow: each shard assembles one, and one slow client is
    /// served.
    messages_bytes_min: u64,
}

/// The name of the line for segments, outboxes, replies and messages being assembled.
const MESSAGES: &str = "messages";

impl MemoryPlan {
    /// The plan for `config`. Whether it fits is for `prove` to say: see
    /// [`needed`](Self::needed).
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let shards = config.shards as u64;
        let connections = config.limits.connections_max as u64;
        let channels = config.limits.channels_max as u64;
        let letters = limits::MAILBOX_LETTERS_MAX as u64;
        let place = limits::MAILBOX_PLACE_BYTES_MAX as u64;
        let letters_bytes = limits::MAILBOX_BYTES_MAX as u64;
        let message = config.limits.message_bytes_max as u64;
        let outbox = config.limits.outbox_bytes_max as u64;
        let mut lines = vec![
            Line {
                name: "program",
                bytes: PROGRAM_BYTES + shards * STACK_BYTES,
                how: format!(
                    "{} + {shards} shards x {} stack",
                    Size(PROGRAM_BYTES),
                    Size(STACK_BYTES)
                ),
            },
            Line {
                name: "receive_buffers",
                bytes: shards * RECEIVE_BUFFERS_PER_SHARD * RECEIVE_BUFFER_BYTES,
                how: format!(
                    "{shards} shards x {RECEIVE_BUFFERS_PER_SHARD} x {}",
                    Size(RECEIVE_BUFFER_BYTES)
                ),
            },
            Line {
                name: "rings",
                bytes: shards * (SUBMISSION_ENTRIES * 64 + COMPLETION_ENTRIES * 16),
                how: format!(
                    "{shards} shards x ({SUBMISSION_ENTRIES} x 64 + {COMPLETION_ENTRIES} x 16)"
                ),
            },
            Line {
                name: "mailboxes",
                bytes: shards * (letters * place + 2 * letters_bytes),
                how: format!(
                    "{shards} shards x ({letters} letters x {place} + 2 x {})",
                    Size(letters_bytes)
                ),
            },
            Line {
                name: "connections",
                bytes: connections * CONNECTION_BYTES,
                how: format!("limits.connections_max {connections} x {CONNECTION_BYTES}"),
            },
            Line {
                name: "channels",
                bytes: channels * CHANNEL_BYTES,
                how: format!("limits.channels_max {channels} x {CHANNEL_BYTES}"),
            },
        ];
        if config.compression {
            // `/echo` compresses beside the hub.
            let compression = COMPRESSION_BYTES * if config.echo { 2 } else { 1 };
            lines.push(Line {
                name: "compression",
                bytes: shards * (compression + message),
                how: format!(
                    "{shards} shards x ({} + limits.message_bytes_max)",
                    Size(compression)
                ),
            });
        }
        let fixed: u64 = lines.iter().map(|line| line.bytes).sum();
        let memory_max = config.limits.memory_max;
        lines.push(Line {
            name: MESSAGES,
            bytes: memory_max.saturating_sub(fixed),
            how: "what remains for segments, outboxes, replies and messages being assembled".into(),
        });
        let unread = match (config.socket.send_buffer_bytes, config.socket.notsent_lowat_bytes) {
            (Some(bytes), _) => bytes as u64 * 2,
            (None, Some(bytes)) => bytes as u64,
            (None, None) => 4 << 20,
        };
        let kernel = vec![
            Line {
                name: "kernel_sockets",
                bytes: connections * KERNEL_CONNECTION_BYTES,
                how: format!("{connections} idle connections x about {KERNEL_CONNECTION_BYTES}"),
            },
            Line {
                name: "kernel_unread",
                bytes: unread,
                how: "for each client that stops reading, about; bounded by net.ipv4.tcp_mem"
                    .into(),
            },
        ];
        let messages_bytes_min =
            shards * (message + limits::SEGMENT_BYTES_MAX as u64) + outbox + message;
        Self { lines, kernel, memory_max, messages_bytes_min }
    }

    /// Bytes for segments, outboxes, replies and messages being assembled, in the whole process.
    #[must_use]
    pub fn messages_bytes(&self) -> u64 {
        self.lines.iter().find(|line| line.name == MESSAGES).map_or(0, |line| line.bytes)
    }

    /// The least `memory_max` this configuration can run with.
    #[must_use]
    pub fn needed(&self) -> u64 {
        self.fixed().map(|line| line.bytes).sum::<u64>() + self.messages_bytes_min
    }

    /// The largest line that a limit asks for, and its bytes: where to save.
    #[must_use]
    pub fn largest(&self) -> (&'static str, u64) {
        let line = self.fixed().max_by_key(|line| line.bytes).expect("a plan has lines");
        (line.name, line.bytes)
    }

    fn fixed(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.name != MESSAGES)
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = Line {
            name: "total",
            bytes: self.lines.iter().map(|line| line.bytes).sum(),
            how: "limits.memory_max".into(),
        };
        let rows = || self.lines.iter().chain([&total]).chain(&self.kernel);
        let name_width = rows().map(|line| line.name.len()).max().unwrap_or(0);
        let bytes_width = rows().map(|line| rounded(line.bytes).len()).max().unwrap_or(0);
        for (index, line) in rows().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            let bytes = rounded(line.bytes);
            let Line { name, how, .. } = line;
            write!(out, "{newline}{name:name_width$}  {bytes:>bytes_width$}  {how}")?;
        }
        Ok(())
    }
}

/// Bytes for people: MiB with one digit, or KiB.
fn rounded(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        0..MIB => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / MIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shards: usize, memory_max: u64) -> Config {
        let mut config = Config { shards, ..Config::default() };
        config.limits.memory_max = memory_max;
        config
    }

    #[test]
    fn the_lines_add_up_to_memory_max() {
        for shards in [1, 2, 4, 16] {
            let plan = MemoryPlan::of(&config(shards, 1 << 30));
            assert_eq!(plan.lines.iter().map(|line| line.bytes).sum::<u64>(), 1 << 30);
            assert!(plan.needed() <= plan.memory_max);
            assert!(plan.messages_bytes() > 0);
        }
    }

    #[test]
    fn the_defaults_fit_on_every_machine() {
        let config = config(super::super::SHARDS_DEFAULT_MAX, Config::default().limits.memory_max);
        let plan = MemoryPlan::of(&config);
        assert!(plan.needed() <= plan.memory_max, "{plan}");
        assert!(Config::default().shards <= limits::SHARDS_MAX);
    }

    #[test]
    fn a_ceiling_below_the_fixed_part_is_seen() {
        let plan = MemoryPlan::of(&config(2, 64 << 20));
        assert!(plan.needed() > plan.memory_max);
        assert_eq!(plan.messages_bytes(), 0);
    }

    #[test]
    fn a_box_of_256_mib_can_hold_ten_thousand_clients_on_four_shards() {
        let mut config = config(4, 128 << 20);
        config.limits.connections_max = 10_000;
        config.limits.channels_max = 10_000;
        let plan = MemoryPlan::of(&config);
        assert!(plan.needed() <= plan.memory_max, "{plan}");
        assert!(plan.messages_bytes() > 64 << 20, "{plan}");
    }

    #[test]
    fn the_table_is_aligned_and_shows_the_total() {
        let page = MemoryPlan::of(&config(2, 1 << 30)).to_string();
        let columns: Vec<Option<usize>> = page.lines().map(|line| line.find("iB  ")).collect();
        assert!(columns.iter().all(|column| column.is_some() && *column == columns[0]), "{page}");
        assert!(page.contains("total            1024.0 MiB  limits.memory_max"), "{page}");
    }
}
