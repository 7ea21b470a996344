//! Where a client wants to go on: the member `since` of a subscribe.
//!
//! ```text
//! {"epoch":"k3x9","seq":120}    behind message 120 of that life of the channel
//! {"last":10}                   with the last ten messages
//! "latest"                      with the last message
//! ```
//!
//! In a URL it is a cursor: `k3x9.120`, or `latest`. Cursors of several channels stand one behind the
//! other, with commas between: `k3x9.120,-,latest`. The dash is no cursor: go on with what comes next.

use std::time::Duration;

use crate::limits::CONFLATION_INTERVAL_MAX;
use crate::proto::json;
use crate::time::parse_duration;

/// Where a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since<'a> {
    /// Behind a message it has.
    After {
        /// The life of the channel, as it was told: without the quotes.
        epoch: &'a str,
        /// The last message it has, or was told of.
        seq: u64,
    },
    /// With the last so many messages.
    Last(u32),
}

/// Reads a `since` that was scanned before; `None` when it is none of the three.
#[must_use]
pub fn parse(raw: &[u8]) -> Option<Since<'_>> {
    if raw == b"\"latest\"" {
        return Some(Since::Last(1));
    }
    let (mut epoch, mut seq, mut last) = (None, None, None);
    for member in json::members(raw)? {
        let member = member.ok()?;
        let mut places = [("epoch", &mut epoch), ("seq", &mut seq), ("last", &mut last)];
        let (_, place) = places.iter_mut().find(|(name, _)| member.is_named(name))?;
        if place.replace(member.value).is_some() {
            return None;
        }
    }
    match (epoch, seq, last) {
        (Some(epoch), Some(seq), None) => {
            Some(Since::After { epoch: plain_string(epoch)?, seq: number(seq)? })
        }
        (None, None, Some(last)) => Some(Since::Last(u32::try_from(number(last)?).ok()?)),
        _ => None,
    }
}

/// Reads a cursor; `None` when it is neither of the two.
#[must_use]
pub fn parse_cursor(cursor: &str) -> Option<Since<'_>> {
    if cursor == "latest" {
        return Some(Since::Last(1));
    }
    let (epoch, seq) = cursor.split_once('.')?;
    // Rust's numbers may have a sign.
    let seq = seq.as_bytes().iter().all(u8::is_ascii_digit).then(|| seq.parse().ok())??;
    Some(Since::After { epoch, seq })
}

/// Reads the cursors of several channels, in their order; a part that is none is `Err`.
pub fn parse_cursors(cursors: &str) -> impl Iterator<Item = Result<Option<Since<'_>>, ()>> {
    cursors.split(',').map(|cursor| match cursor {
        "-" => Ok(None),
        cursor => parse_cursor(cursor).map(Some).ok_or(()),
    })
}

/// Appends the cursors behind these messages, in order: the life of the channel, and the number.
pub fn write_cursors<'e>(
    out: &mut Vec<u8>,
    positions: impl Iterator<Item = Option<(&'e str, u64)>>,
) {
    for (index, position) in positions.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match position {
            Some((epoch, seq)) => {
                out.extend_from_slice(epoch.as_bytes());
                out.push(b'.');
                json::write_number(out, seq);
            }
            None => out.push(b'-'),
        }
    }
}

/// How often somebody wants messages at most, scanned before: `"500ms"`.
pub(super) fn interval(raw: &[u8]) -> Option<Duration> {
    parse_duration(plain_string(raw)?).filter(|interval| *interval <= CONFLATION_INTERVAL_MAX)
}

/// A whole number that was scanned before.
pub(super) fn number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// A string that is written without an escape: an epoch is letters and digits, so another way to
/// write one is another epoch.
fn plain_string(raw: &[u8]) -> Option<&str> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(inner).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ways_to_say_where_one_was_are_understood() {
        for (written, expected) in [
            (r#"{"epoch":"k3x9","seq":120}"#, Since::After { epoch: "k3x9", seq: 120 }),
            (r#" { "seq" : 0 , "epoch" : "" } "#, Since::After { epoch: "", seq: 0 }),
            (r#"{"last":10}"#, Since::Last(10)),
            (r#""latest""#, Since::Last(1)),
        ] {
            assert_eq!(parse(written.trim().as_bytes()), Some(expected), "{written}");
        }
    }

    #[test]
    fn a_cursor_is_an_epoch_and_a_number_or_the_word_latest() {
        for (cursor, expected) in [
            ("k3x9.120", Some(Since::After { epoch: "k3x9", seq: 120 })),
            (".0", Some(Since::After { epoch: "", seq: 0 })),
            ("latest", Some(Since::Last(1))),
            ("k3x9", None),
            ("k3x9.", None),
            ("k3x9.+1", None),
            ("k3x9.-1", None),
            ("k3x9.1.2", None),
            ("k3x9.18446744073709551616", None),
            ("", None),
        ] {
            assert_eq!(parse_cursor(cursor), expected, "{cursor}");
        }
    }

    #[test]
    fn cursors_of_several_channels_are_read_back_as_they_were_written() {
        let positions = [Some(("k3x9", 120)), None, Some(("", u64::MAX))];
        let mut out = Vec::new();
        write_cursors(&mut out, positions.into_iter());
        let written = String::from_utf8(out).unwrap();
        assert_eq!(written, "k3x9.120,-,.18446744073709551615");
        let after = |(epoch, seq)| Since::After { epoch, seq };
        let read: Result<Vec<_>, ()> = parse_cursors(&written).collect();
        assert_eq!(read, Ok(positions.map(|position| position.map(after)).to_vec()));
        let read: Vec<_> = parse_cursors("latest,,k3x9,-,--").collect();
        assert_eq!(read, [Ok(Some(Since::Last(1))), Err(()), Err(()), Ok(None), Err(())]);
    }

    #[test]
    fn anything_else_is_none() {
        for written in [
            "120",
            r#""newest""#,
            "{}",
            "[]",
            "true",
            r#"{"epoch":"k3x9"}"#,
            r#"{"seq":1}"#,
            r#"{"epoch":"k3x9","seq":-1}"#,
            r#"{"epoch":"k3x9","seq":1.5}"#,
            r#"{"epoch":"k3x9","seq":18446744073709551616}"#,
            r#"{"epoch":3,"seq":1}"#,
            r#"{"epoch":"a","seq":1,"last":1}"#,
            r#"{"epoch":"a","seq":1,"seq":2}"#,
            r#"{"last":4294967296}"#,
            r#"{"last":"1"}"#,
            r#"{"last":1,"first":2}"#,
        ] {
            assert_eq!(parse(written.as_bytes()), None, "{written}");
        }
    }
}
