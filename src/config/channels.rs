//! The keys of a `[[channel]]`: how the messages of the channels it matches are treated. What holds
//! for all other channels stands in the tables of the same names at the top.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::ChannelRule;
use super::value::{Span, Value};
use crate::hub::{Overflow, Rule};
use crate::limits;
use crate::proto::envelope::pattern::is_rule_pattern;

/// The table of channel rules in the file.
pub const CHANNEL_TABLE: &str = "channel";

/// One key of a `[[channel]]`.
#[derive(Debug)]
pub struct ChannelKey {
    /// Its name within the table.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// How it may look in a file.
    pub example: &'static str,
    /// Reads a value into the rule, or says what is wrong with it.
    pub set: fn(&mut ChannelRule, &Value) -> Result<(), String>,
}

/// The keys of a `[[channel]]`; the first one must be there.
pub static CHANNEL_KEYS: [ChannelKey; 13] = [
    ChannelKey {
        name: "match",
        help: "Which channels: `*` stands for any run of characters without a dot, `.>` at the end for all that follows. The first rule that matches decides.",
        example: "\"md.>\"",
        set: |rule, value| {
            let pattern = value.text()?;
            let bytes = pattern.len();
            if bytes == 0 || bytes > limits::CHANNEL_NAME_BYTES_MAX {
                let most = limits::CHANNEL_NAME_BYTES_MAX;
                return Err(format!("{bytes} bytes long; 1 to {most} can match a channel"));
            }
            if pattern.chars().any(char::is_control) {
                return Err("holds a control character, which no channel's name can".into());
            }
            if !is_rule_pattern(pattern) {
                return Err("`>` stands at the end, alone or behind a dot".into());
            }
            rule.pattern = pattern.into();
            Ok(())
        },
    },
    ChannelKey {
        name: "overflow",
        help: "What happens to a message when a subscriber's outbox is full.",
        example: "\"drop_oldest\"",
        set: |rule, value| overflow(&mut rule.rule, value),
    },
    ChannelKey {
        name: "max_age",
        help: "How old a message may be when it goes to a socket, or \"off\". An older one is dropped.",
        example: "\"500ms\"",
        set: |rule, value| max_age(&mut rule.rule, value),
    },
    ChannelKey {
        name: "history.messages",
        help: "How many messages are kept for those who were away, or \"off\".",
        example: "100",
        set: |rule, value| history_messages(&mut rule.rule, value),
    },
    ChannelKey {
        name: "history.age",
        help: "For how long they are kept.",
        example: "\"60s\"",
        set: |rule, value| history_age(&mut rule.rule, value),
    },
    ChannelKey {
        name: "history.bytes",
        help: "How much is kept.",
        example: "\"1MiB\"",
        set: |rule, value| history_bytes(&mut rule.rule, value),
    },
    ChannelKey {
        name: "idempotency.age",
        help: "For how long the key of a publish is remembered.",
        example: "\"120s\"",
        set: |rule, value| idempotency_age(&mut rule.rule, value),
    },
    ChannelKey {
        name: "idempotency.keys",
        help: "How many keys are remembered.",
        example: "1000",
        set: |rule, value| idempotency_keys(&mut rule.rule, value),
    },
    ChannelKey {
        name: "conflate.interval",
        help: "Subscribers get the newest message of each key only, and no oftener than this; \"off\" for every message.",
        example: "\"100ms\"",
        set: |rule, value| conflate_interval(&mut rule.rule, value),
    },
    ChannelKey {
        name: "conflate.key",
        help: "The member of a payload whose value is the key, or \"off\": all messages have the same.",
        example: "\"symbol\"",
        set: |rule, value| conflate_key(&mut rule.rule, value),
    },
    ChannelKey {
        name: "presence.grace",
        help: "Users who are subscribed are listed, and for so long after their last connection has left; \"off\": nobody is.",
        example: "\"5s\"",
        set: |rule, value| presence_grace(&mut rule.rule, value),
    },
    ChannelKey {
        name: "presence.events",
        help: "For how long those who come and go are gathered before they are told in the channel presence:NAME, or \"off\".",
        example: "\"1s\"",
        set: |rule, value| presence_events(&mut rule.rule, value),
    },
    ChannelKey {
        name: "presence.users_max",
        help: "How many users are listed. The connections of others are counted.",
        example: "100000",
        set: |rule, value| presence_users_max(&mut rule.rule, value),
    },
];

pub(super) const OVERFLOWS: [(&str, Overflow); 3] = [
    ("drop_oldest", Overflow::DropOldest),
    ("drop_newest", Overflow::DropNewest),
    ("close", Overflow::Close),
];

/// A history of a month is a database's business.
const AGES: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(2_678_400);

/// Below it a client's screen does not show more, and each flush costs a send to everybody.
const INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=limits::CONFLATION_INTERVAL_MAX;

/// Who does not come back within an hour has left.
const GRACES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);

/// Each costs a message to everybody who wants to know.
const GATHERINGS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

const MESSAGES_MAX: u64 = 10_000_000;

/// More than anybody reads: what bounds a list is memory.
const USERS_MAX: u64 = 10_000_000;
const BYTES: RangeInclusive<u64> = 1024..=1 << 40;

pub(super) fn overflow(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.overflow = value.choice(&OVERFLOWS)?;
    Ok(())
}

pub(super) fn max_age(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.max_age = duration_or_off(value, AGES)?;
    Ok(())
}

/// What a rule says that cannot be, and in which key.
pub(super) fn contradiction(rule: &Rule) -> Option<(&'static [&'static str], String)> {
    let (interval, max_age) = (rule.conflate.interval?, rule.max_age?);
    (max_age < interval * 2).then(|| {
        let (interval, max_age) = (Span(interval), Span(max_age));
        let text = format!(
            "max_age {max_age} is less than twice conflate.interval {interval}: what waits for its end \
             would be dropped as too old"
        );
        (&["max_age", "conflate.interval"][..], text)
    })
}

pub(super) fn history_messages(rule: &mut Rule, value: &Value) -> Result<(), String> {
    let messages = if value.is("off") { 0 } else { value.count(1..=MESSAGES_MAX)? };
    rule.history.messages = messages as u32;
    Ok(())
}

pub(super) fn history_age(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.history.age = value.duration(AGES)?;
    Ok(())
}

pub(super) fn history_bytes(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.history.bytes = usize::try_from(value.size(BYTES)?).unwrap_or(usize::MAX);
    Ok(())
}

pub(super) fn idempotency_age(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.keys.age = value.duration(AGES)?;
    Ok(())
}

pub(super) fn idempotency_keys(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.keys.keys = if value.is("off") { 0 } else { value.count(1..=MESSAGES_MAX)? as u32 };
    Ok(())
}

pub(super) fn conflate_interval(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.conflate.interval = duration_or_off(value, INTERVALS)?;
    Ok(())
}

pub(super) fn conflate_key(rule: &mut Rule, value: &Value) -> Result<(), String> {
    let name = value.text()?.trim();
    let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if name.is_empty() || name.len() > limits::CONFLATION_KEY_NAME_BYTES_MAX {
        let most = limits::CONFLATION_KEY_NAME_BYTES_MAX;
        return Err(format!("{} bytes long; a member's name here has 1 to {most}", name.len()));
    }
    if !name.bytes().all(is_name) {
        return Err("holds something else than ASCII letters, digits and signs".into());
    }
    rule.conflate.key = (name != "off").then(|| Arc::from(name));
    Ok(())
}

pub(super) fn presence_grace(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.presence.grace = duration_or_off(value, GRACES)?;
    Ok(())
}

pub(super) fn presence_events(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.presence.events = duration_or_off(value, GATHERINGS)?;
    Ok(())
}

pub(super) fn presence_users_max(rule: &mut Rule, value: &Value) -> Result<(), String> {
    rule.presence.users_max = value.count(1..=USERS_MAX)? as u32;
    Ok(())
}

fn duration_or_off(
    value: &Value,
    allowed: RangeInclusive<Duration>,
) -> Result<Option<Duration>, String> {
    if value.is("off") {
        return Ok(None);
    }
    value.duration(allowed).map(Some).map_err(|text| format!("{text} (or \"off\")"))
}
