//! Every key an operator may set, in one table: its name, what it means, how its value is read
//! and how its default is shown. The file, the environment, the flags, the nearest-name search
//! and the annotated example are all driven by it; no name is written a second time.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::channels::{self, OVERFLOWS};
use super::value::{Size, Span, Value};
use super::{Config, Cors, Descriptors, DriverKind, LogFormat};
use crate::limits;
use crate::proto::http::cors::is_origin;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// As in the file, with the table in front: `limits.message_bytes_max`.
    pub name: &'static str,
    /// How it is given as a flag, if it can be.
    pub flag: Option<Flag>,
    /// Its effect and its cost, one sentence each.
    pub help: &'static str,
    /// Reads a value into the configuration, or says what is wrong with it.
    pub set: fn(&mut Config, &Value) -> Result<(), String>,
    /// The value in the configuration, as it would be written in the file.
    pub show: fn(&Config) -> String,
}

/// How a key is given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `--name VALUE`, with a word for the value.
    Value(&'static str),
    /// `--name`, which means `true`.
    Switch,
}

impl Key {
    /// The name without its table.
    #[must_use]
    pub fn last(&self) -> &'static str {
        last(self.name)
    }

    /// The table it stands in; empty for the top of the file.
    #[must_use]
    pub fn table(&self) -> &'static str {
        self.name.rsplit_once('.').map_or("", |(table, _)| table)
    }

    /// Its environment variable: `RINGCAST_LIMITS_MESSAGE_BYTES_MAX`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// Its flag without the dashes: `log-format`.
    #[must_use]
    pub fn flag_name(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

/// What every environment variable of ours begins with.
pub const VARIABLE_PREFIX: &str = "RINGCAST_";

const DRIVERS: [(&str, DriverKind); 3] =
    [("auto", DriverKind::Auto), ("uring", DriverKind::Uring), ("epoll", DriverKind::Epoll)];

const DESCRIPTORS: [(&str, Descriptors); 3] = [
    ("auto", Descriptors::Auto),
    ("regular", Descriptors::Regular),
    ("direct", Descriptors::Direct),
];

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const LEVELS: [(&str, tracing::Level); 5] = [
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];

const OFF: &str = "off";
const AUTO: &str = "auto";

/// A table of ten million entries is beyond every box this is for; above it is a typing error.
const COUNT_MAX: u64 = 10_000_000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One step of the timer wheel is 16 ms; shorter timeouts could not be kept.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(86_400);

/// Every key, in the order of the file.
pub static KEYS: [Key; 44] = [
    Key {
        name: "listen",
        flag: Some(Flag::Value("ADDRESS")),
        help: "Where clients connect. Loopback until told otherwise.",
        set: |config, value| set(&mut config.listen, value.address()),
        show: |config| quoted(config.listen),
    },
    Key {
        name: "admin",
        flag: Some(Flag::Value("ADDRESS")),
        help: "Where the operator looks (/metrics, /healthz, /readyz), or \"off\".",
        set: |config, value| set(&mut config.admin, or_off(value, Value::address)),
        show: |config| quoted_or(OFF, config.admin),
    },
    Key {
        name: "shards",
        flag: Some(Flag::Value("COUNT")),
        help: "Threads, each with its own ring, listener and clients; \"auto\" is one for each CPU \
               this process may use, up to 32.",
        set: |config, value| {
            let shards = match value.is(AUTO) {
                true => Ok(Config::default().shards),
                false => count(value, 1..=limits::SHARDS_MAX as u64),
            };
            set(&mut config.shards, shards)
        },
        show: |config| match config.shards == Config::default().shards {
            true => quoted(AUTO),
            false => config.shards.to_string(),
        },
    },
    Key {
        name: "pin",
        flag: None,
        help: "Binds each shard's thread to a CPU of its own.",
        set: |config, value| set(&mut config.pin, value.boolean()),
        show: |config| config.pin.to_string(),
    },
    Key {
        name: "driver",
        flag: Some(Flag::Value("auto|uring|epoll")),
        help: "How sockets are driven: \"uring\", \"epoll\", or \"auto\": io_uring where the kernel \
               has and allows it.",
        set: |config, value| set(&mut config.driver, value.choice(&DRIVERS)),
        show: |config| word(&DRIVERS, config.driver),
    },
    Key {
        name: "descriptors",
        flag: Some(Flag::Value("auto|regular|direct")),
        help: "How the io_uring driver keeps sockets: \"direct\" in a table for each shard, so that \
               LimitNOFILE bounds a shard and not the process; \"regular\" visible to `ss -p`; \
               \"auto\" goes by limits.connections_max.",
        set: |config, value| set(&mut config.descriptors, value.choice(&DESCRIPTORS)),
        show: |config| word(&DESCRIPTORS, config.descriptors),
    },
    Key {
        name: "echo",
        flag: Some(Flag::Switch),
        help: "Adds a plain echo endpoint at /echo, for conformance suites and benchmarks only.",
        set: |config, value| set(&mut config.echo, value.boolean()),
        show: |config| config.echo.to_string(),
    },
    Key {
        name: "cors",
        flag: None,
        help: "Whose pages may publish over HTTP and read the answers, beside the server's own: a \
               list of origins as browsers write them (\"https://app.example\"), \"*\" for every one, \
               or \"off\".",
        set: |config, value| set(&mut config.cors, origins(value)),
        show: |config| match &config.cors {
            Cors::Off => quoted(OFF),
            Cors::Any => quoted("*"),
            Cors::Listed(origins) => format!("{origins:?}"),
        },
    },
    Key {
        name: "compression",
        flag: None,
        help: "Whether messages are compressed for clients that offer permessage-deflate: each once \
               for all of them. It costs CPU for every message of some length, and saves bandwidth.",
        set: |config, value| set(&mut config.compression, value.boolean()),
        show: |config| config.compression.to_string(),
    },
    Key {
        name: "compression_level",
        flag: None,
        help: "How hard is tried, from 1 to 9. 1 takes half the time of 2 and a third more bytes; \
               beyond 2 little is gained.",
        set: |config, value| {
            set(&mut config.compression_level, value.count(1..=9).map(|level| level as u32))
        },
        show: |config| config.compression_level.to_string(),
    },
    Key {
        name: "overflow",
        flag: None,
        help: "What happens to a message when a subscriber's outbox is full, in channels that no \
               [[channel]] matches: \"drop_oldest\", \"drop_newest\" or \"close\".",
        set: |config, value| channels::overflow(&mut config.rule, value),
        show: |config| word(&OVERFLOWS, config.rule.overflow),
    },
    Key {
        name: "max_age",
        flag: None,
        help: "How old a message may be when it goes to a socket, or \"off\". An older one is dropped, \
               and the client is told.",
        set: |config, value| channels::max_age(&mut config.rule, value),
        show: |config| quoted_or(OFF, config.rule.max_age.map(Span)),
    },
    Key {
        name: "history.messages",
        flag: None,
        help: "How many of a channel's messages are kept for those who were away, or \"off\", in \
               channels whose [[channel]] says nothing else. What is kept counts in \
               limits.memory_max.",
        set: |config, value| channels::history_messages(&mut config.rule, value),
        show: |config| match config.rule.history.messages {
            0 => quoted(OFF),
            messages => messages.to_string(),
        },
    },
    Key {
        name: "history.age",
        flag: None,
        help: "For how long they are kept.",
        set: |config, value| channels::history_age(&mut config.rule, value),
        show: |config| quoted(Span(config.rule.history.age)),
    },
    Key {
        name: "history.bytes",
        flag: None,
        help: "How much of a channel is kept, in bytes of its messages.",
        set: |config, value| channels::history_bytes(&mut config.rule, value),
        show: |config| shown_size(config.rule.history.bytes as u64),
    },
    Key {
        name: "idempotency.age",
        flag: None,
        help: "For how long the `key` of a publish is remembered: the same key again is not \
               published a second time.",
        set: |config, value| channels::idempotency_age(&mut config.rule, value),
        show: |config| quoted(Span(config.rule.keys.age)),
    },
    Key {
        name: "idempotency.keys",
        flag: None,
        help: "How many keys a channel remembers, or \"off\". All together never take more than a \
               sixteenth of the memory for messages.",
        set: |config, value| channels::idempotency_keys(&mut config.rule, value),
        show: |config| match config.rule.keys.keys {
            0 => quoted(OFF),
            keys => keys.to_string(),
        },
    },
    Key {
        name: "conflate.interval",
        flag: None,
        help: "Subscribers get the newest message of each key only, and no oftener than this, or \
               \"off\": every message, in channels whose [[channel]] says nothing else.",
        set: |config, value| channels::conflate_interval(&mut config.rule, value),
        show: |config| quoted_or(OFF, config.rule.conflate.interval.map(Span)),
    },
    Key {
        name: "conflate.key",
        flag: None,
        help: "The member of a payload whose value is the key, or \"off\": all messages of a \
               channel have the same.",
        set: |config, value| channels::conflate_key(&mut config.rule, value),
        show: |config| quoted_or(OFF, config.rule.conflate.key.as_ref()),
    },
    Key {
        name: "presence.grace",
        flag: None,
        help: "Users who are subscribed to a channel are listed, and for so long after their last \
               connection has left, or \"off\": nobody is, in channels whose [[channel]] says \
               nothing else. The lists never take more than an eighth of the memory for messages.",
        set: |config, value| channels::presence_grace(&mut config.rule, value),
        show: |config| quoted_or(OFF, config.rule.presence.grace.map(Span)),
    },
    Key {
        name: "presence.events",
        flag: None,
        help: "For how long those who come and go are gathered before they are told, in one message \
               to the channel presence:NAME, or \"off\": they are not told.",
        set: |config, value| channels::presence_events(&mut config.rule, value),
        show: |config| quoted_or(OFF, config.rule.presence.events.map(Span)),
    },
    Key {
        name: "presence.users_max",
        flag: None,
        help: "How many users of a channel are listed. The connections of others are counted.",
        set: |config, value| channels::presence_users_max(&mut config.rule, value),
        show: |config| config.rule.presence.users_max.to_string(),
    },
    Key {
        name: "limits.message_bytes_max",
        flag: None,
        help: "Bytes of one message from a client, after reassembly; more closes it with 1009.",
        set: |config, value| {
            let allowed = 128..=limits::MESSAGE_BYTES_MAX_MAX as u64;
            set(&mut config.limits.message_bytes_max, size(value, allowed))
        },
        show: |config| shown_size(config.limits.message_bytes_max as u64),
    },
    Key {
        name: "limits.body_bytes_max",
        flag: None,
        help: "Bytes of the whole body of a publish over HTTP, however many messages it has; more \
               ends it with 413.",
        set: |config, value| {
            let most = value.size(1024..=1024 * GIB);
            set(&mut config.limits.body_bytes_max, most)
        },
        show: |config| shown_size(config.limits.body_bytes_max),
    },
    Key {
        name: "limits.connections_max",
        flag: None,
        help: "Connections in the whole process; beyond it a peer gets 503. Each costs its table \
               entry whether it is there or not (see `ringcast check`).",
        set: |config, value| set(&mut config.limits.connections_max, count(value, 1..=COUNT_MAX)),
        show: |config| config.limits.connections_max.to_string(),
    },
    Key {
        name: "limits.connections_per_address_max",
        flag: None,
        help: "Connections from one address, or \"off\"; beyond it a peer gets 429. Clients behind \
               one NAT or proxy share an address.",
        set: |config, value| {
            let limit = or_off(value, |value| count(value, 1..=COUNT_MAX));
            set(&mut config.limits.connections_per_address_max, limit)
        },
        show: |config| match config.limits.connections_per_address_max {
            Some(limit) => limit.to_string(),
            None => quoted(OFF),
        },
    },
    Key {
        name: "limits.channels_per_client_max",
        flag: None,
        help: "Channels one client may be subscribed to.",
        set: |config, value| {
            set(&mut config.limits.channels_per_client_max, count(value, 1..=65_535))
        },
        show: |config| config.limits.channels_per_client_max.to_string(),
    },
    Key {
        name: "limits.channels_max",
        flag: None,
        help: "Channels the whole process keeps numbering for.",
        set: |config, value| set(&mut config.limits.channels_max, count(value, 1..=COUNT_MAX)),
        show: |config| config.limits.channels_max.to_string(),
    },
    Key {
        name: "limits.outbox_messages_max",
        flag: None,
        help: "Messages queued for one client that does not read, before `overflow` decides.",
        set: |config, value| set(&mut config.limits.outbox_messages_max, count(value, 1..=65_536)),
        show: |config| config.limits.outbox_messages_max.to_string(),
    },
    Key {
        name: "limits.outbox_bytes_max",
        flag: None,
        help: "Bytes queued for one client that does not read, before `overflow` decides.",
        set: |config, value| set(&mut config.limits.outbox_bytes_max, size(value, 1024..=GIB)),
        show: |config| shown_size(config.limits.outbox_bytes_max as u64),
    },
    Key {
        name: "limits.compression_window_bytes_max",
        flag: None,
        help: "Bytes kept of what a client said in compressed messages, so that its next ones can \
               refer back to them, or \"off\". Each client that publishes costs as much.",
        set: |config, value| {
            let bytes = or_off(value, |value| size(value, 512..=32 * 1024));
            set(&mut config.limits.compression_window_bytes_max, bytes)
        },
        show: |config| match config.limits.compression_window_bytes_max {
            Some(bytes) => shown_size(bytes as u64),
            None => quoted(OFF),
        },
    },
    Key {
        name: "limits.memory_max",
        flag: None,
        help: "Bytes the whole process may hold. Past it new work is refused and the worst \
               offender gives way.",
        set: |config, value| set(&mut config.limits.memory_max, value.size(16 * MIB..=1024 * GIB)),
        show: |config| shown_size(config.limits.memory_max),
    },
    Key {
        name: "timing.handshake_timeout",
        flag: None,
        help: "From accept to a complete request head.",
        set: |config, value| set(&mut config.timing.handshake_timeout, value.duration(TIMEOUTS)),
        show: |config| quoted(Span(config.timing.handshake_timeout)),
    },
    Key {
        name: "timing.request_timeout",
        flag: None,
        help: "From the head of a publish over HTTP to the end of its body and of its answer.",
        set: |config, value| set(&mut config.timing.request_timeout, value.duration(TIMEOUTS)),
        show: |config| quoted(Span(config.timing.request_timeout)),
    },
    Key {
        name: "timing.ping_interval",
        flag: None,
        help: "Silence after which a client is pinged (jittered per client). Proxies cut at 60s.",
        set: |config, value| set(&mut config.timing.ping_interval, value.duration(TIMEOUTS)),
        show: |config| quoted(Span(config.timing.ping_interval)),
    },
    Key {
        name: "timing.pong_timeout",
        flag: None,
        help: "Silence after a ping that ends the connection. Any received byte is life.",
        set: |config, value| set(&mut config.timing.pong_timeout, value.duration(TIMEOUTS)),
        show: |config| quoted(Span(config.timing.pong_timeout)),
    },
    Key {
        name: "timing.idle_timeout",
        flag: None,
        help: "Time without a message from a client that ends its connection, or \"off\".",
        set: |config, value| {
            let timeout = or_off(value, |value| value.duration(TIMEOUTS));
            set(&mut config.timing.idle_timeout, timeout)
        },
        show: |config| quoted_or(OFF, config.timing.idle_timeout.map(Span)),
    },
    Key {
        name: "timing.close_timeout",
        flag: None,
        help: "From our close frame to the peer's.",
        set: |config, value| set(&mut config.timing.close_timeout, value.duration(TIMEOUTS)),
        show: |config| quoted(Span(config.timing.close_timeout)),
    },
    Key {
        name: "timing.drain_window",
        flag: None,
        help: "Over which a shutdown spreads the good-byes. Keep the service manager's stop \
               timeout above it.",
        set: |config, value| {
            let allowed = Duration::ZERO..=Duration::from_secs(3600);
            set(&mut config.timing.drain_window, value.duration(allowed))
        },
        show: |config| quoted(Span(config.timing.drain_window)),
    },
    Key {
        name: "socket.send_buffer_bytes",
        flag: None,
        help: "SO_SNDBUF of each client: what a slow one can pin in the kernel (which doubles the \
               number). \"auto\" leaves it to tcp_wmem.",
        set: |config, value| {
            let bytes = or(AUTO, value, |value| size(value, 4096..=GIB));
            set(&mut config.socket.send_buffer_bytes, bytes)
        },
        show: |config| match config.socket.send_buffer_bytes {
            Some(bytes) => shown_size(bytes as u64),
            None => quoted(AUTO),
        },
    },
    Key {
        name: "socket.notsent_lowat_bytes",
        flag: None,
        help: "TCP_NOTSENT_LOWAT, or \"off\": unsent bytes above which a socket counts as full, so \
               that what is old waits in the outbox, where it can be dropped. 8KiB where a channel \
               has a max_age and nothing is written here.",
        set: |config, value| {
            let bytes = or_off(value, |value| size(value, 1024..=GIB));
            set(&mut config.socket.notsent_lowat_bytes, bytes)
        },
        show: |config| match config.socket.notsent_lowat_bytes {
            Some(bytes) => shown_size(bytes as u64),
            None => quoted(OFF),
        },
    },
    Key {
        name: "socket.backlog",
        flag: None,
        help: "Connections the kernel holds for each shard until they are accepted; cut to \
               net.core.somaxconn.",
        set: |config, value| {
            let backlog = value.count(1..=65_535);
            set(&mut config.socket.backlog, backlog.map(|count| count as i32))
        },
        show: |config| config.socket.backlog.to_string(),
    },
    Key {
        name: "log.format",
        flag: Some(Flag::Value("text|json")),
        help: "\"text\" for people or \"json\" for machines.",
        set: |config, value| set(&mut config.log.format, value.choice(&FORMATS)),
        show: |config| word(&FORMATS, config.log.format),
    },
    Key {
        name: "log.level",
        flag: Some(Flag::Value("LEVEL")),
        help: "Nothing below it is logged: \"error\", \"warn\", \"info\", \"debug\" or \"trace\".",
        set: |config, value| set(&mut config.log.level, value.choice(&LEVELS)),
        show: |config| word(&LEVELS, config.log.level),
    },
];

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn count(value: &Value, allowed: RangeInclusive<u64>) -> Result<usize, String> {
    // COUNT_MAX is the largest bound given here, which fits every `usize` there is.
    value.count(allowed).map(|count| count as usize)
}

fn size(value: &Value, allowed: RangeInclusive<u64>) -> Result<usize, String> {
    // One GiB is the largest bound given here.
    value.size(allowed).map(|bytes| bytes as usize)
}

/// `"off"`, `"*"`, or a list of origins.
fn origins(value: &Value) -> Result<Cors, String> {
    if value.is(OFF) {
        return Ok(Cors::Off);
    }
    if value.is("*") {
        return Ok(Cors::Any);
    }
    let expected = "a list of origins like [\"https://app.example\"], \"*\" or \"off\"";
    let list = value.list(expected)?;
    match list.iter().find(|origin| !is_origin(origin)) {
        Some(wrong) => Err(format!(
            "{wrong:?} is not an origin: a scheme (http or https), a host, perhaps a port, no path"
        )),
        None if list.is_empty() => Ok(Cors::Off),
        None => Ok(Cors::Listed(list.into_iter().map(String::into_boxed_str).collect())),
    }
}

fn or<T>(
    word: &str,
    value: &Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if value.is(word) {
        return Ok(None);
    }
    read(value).map(Some).map_err(|complaint| format!("{complaint} (or {word:?})"))
}

fn or_off<T>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Option<T>, String> {
    or(OFF, value, read)
}

fn quoted(value: impl ToString) -> String {
    format!("{:?}", value.to_string())
}

fn quoted_or(word: &str, value: Option<impl ToString>) -> String {
    value.map_or_else(|| quoted(word), quoted)
}

fn shown_size(bytes: u64) -> String {
    let shown = Size(bytes).to_string();
    if shown.ends_with('B') { quoted(shown) } else { shown }
}

fn word<T: PartialEq>(choices: &[(&str, T)], value: T) -> String {
    let found = choices.iter().find(|(_, choice)| *choice == value);
    quoted(found.expect("every value has its word").0)
}

/// `name` without its table.
pub(super) fn last(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

const _: () = assert!(limits::MESSAGE_BYTES_MAX_MAX as u64 <= GIB);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_can_be_written_back() {
        let defaults = Config::default();
        let mut config = defaults.clone();
        for key in &KEYS {
            let shown = (key.show)(&defaults);
            let value = match shown.strip_prefix('"') {
                Some(text) => Value::Text(text.trim_end_matches('"').into()),
                None if shown == "true" || shown == "false" => Value::Boolean(shown == "true"),
                None => Value::Integer(shown.parse().expect("a number")),
            };
            assert_eq!((key.set)(&mut config, &value), Ok(()), "{}", key.name);
        }
        assert_eq!(config, defaults);
    }

    #[test]
    fn names_variables_and_flags_are_unique() {
        for (index, key) in KEYS.iter().enumerate() {
            for other in &KEYS[..index] {
                assert_ne!(key.name, other.name);
                assert_ne!(key.variable(), other.variable());
                assert_ne!(key.flag_name(), other.flag_name());
            }
        }
    }

    #[test]
    fn keys_of_one_table_stand_together() {
        let mut seen: Vec<&str> = Vec::new();
        for key in &KEYS {
            if seen.last() != Some(&key.table()) {
                assert!(!seen.contains(&key.table()), "{} stands apart", key.name);
                seen.push(key.table());
            }
        }
    }
}
