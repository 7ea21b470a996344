//! Which channels are meant by a name with wildcards in it.
//!
//! Dots divide a name into segments.
//!
//! ```text
//! *    any run of characters without a dot        iot.*.temp   sensor-*
//! >    as the last segment: all that is left      md.>         >
//! ```
//!
//! Everything else stands for itself. Rules for channels may use all of it; who subscribes writes a
//! `*` as a segment of its own, which a trie can follow ([`is_pattern`]).

use crate::limits::{CHANNEL_NAME_BYTES_MAX, PATTERN_SEGMENTS_MAX, PATTERN_WILDCARDS_MAX};

/// Whether `name` means channels by a wildcard; no channel's own name does.
#[must_use]
pub fn has_wildcard(name: &str) -> bool {
    name.bytes().any(|byte| byte == b'*' || byte == b'>')
}

/// Whether one may subscribe to `pattern`: 1 to [`PATTERN_SEGMENTS_MAX`] segments, none of them
/// empty, each without a wildcard or a wildcard alone, of which there are 1 to
/// [`PATTERN_WILDCARDS_MAX`], and `>` only at the end.
#[must_use]
pub fn is_pattern(pattern: &str) -> bool {
    if pattern.len() > CHANNEL_NAME_BYTES_MAX || pattern.chars().any(char::is_control) {
        return false;
    }
    let (mut segments, mut wildcards, mut is_over) = (0, 0, false);
    for segment in pattern.split('.') {
        let is_wildcard = matches!(segment, "*" | ">");
        if is_over || segment.is_empty() || (!is_wildcard && has_wildcard(segment)) {
            return false;
        }
        segments += 1;
        wildcards += usize::from(is_wildcard);
        is_over = segment == ">";
    }
    segments <= PATTERN_SEGMENTS_MAX && (1..=PATTERN_WILDCARDS_MAX).contains(&wildcards)
}

/// Whether `pattern` may stand in a rule: a `>` is the last segment, alone, or it would match
/// nothing.
#[must_use]
pub fn is_rule_pattern(pattern: &str) -> bool {
    let before = pattern.strip_suffix('>').filter(|rest| rest.is_empty() || rest.ends_with('.'));
    !before.unwrap_or(pattern).contains('>')
}

/// Whether `pattern` matches all of `name`.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    loop {
        if pattern == ">" {
            return true;
        }
        match (pattern.split_once('.'), name.split_once('.')) {
            (Some((segment, pattern_rest)), Some((part, name_rest))) => {
                if !segment_matches(segment, part) {
                    return false;
                }
                (pattern, name) = (pattern_rest, name_rest);
            }
            (None, None) => return segment_matches(pattern, name),
            _ => return false,
        }
    }
}

/// The same within a segment, where `*` stands for any run of characters.
fn segment_matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut tail = tail;
    while let Some((part, behind)) = tail.split_once('*') {
        // The leftmost place leaves the most for what follows.
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        tail = behind;
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_segment_and_everything_else_stands_for_itself() {
        for (pattern, name, expected) in [
            ("md.*", "md.AAPL", true),
            ("md.*", "md.", true),
            ("md.*", "md", false),
            ("md.*", "md.us.AAPL", false),
            ("*", "", true),
            ("*", "a.b", false),
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("iot.*.temp", "iot.7.temp", true),
            ("iot.*.temp", "iot.7.8.temp", false),
            ("iot.*.temp", "iot.temp", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbx", false),
            ("a*c", "a.c", false),
            ("*a*", "bab", true),
            ("aa*aa", "aaa", false),
            ("s-*.t", "s-1.t", true),
            ("s-*.t", "s.t", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn an_angle_at_the_end_stands_for_one_segment_or_more() {
        for (pattern, name, expected) in [
            ("md.>", "md.AAPL", true),
            ("md.>", "md.us.AAPL", true),
            ("md.>", "md.", true),
            ("md.>", "md", false),
            ("md.>", "mdx.AAPL", false),
            (">", "md", true),
            (">", "md.us", true),
            ("*.>", "md", false),
            ("*.>", "md.us.AAPL", true),
            ("md.*.>", "md.us", false),
            ("a>", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn one_subscribes_with_wildcards_that_are_segments_and_within_bounds() {
        let (deep, deeper) = ("a.".repeat(15) + "*", "a.".repeat(16) + "*");
        let (many, more) = ("*.".repeat(7) + "*", "*.".repeat(8) + "*");
        let stars = "*".repeat(255);
        for pattern in ["*", ">", "a.*", "a.>", "*.b", "*.>", "a.*.b", "\u{e9}.*", &deep, &many] {
            assert!(is_pattern(pattern), "{pattern}");
        }
        for pattern in [
            "", "a", "a.b", ".", "*.", ".*", "a..*", "a*", "*a", "a>", ">.a", "a.>.b", "a.*b.c",
            "**", "*>", ">>", "a.*\n", &deeper, &more, &stars,
        ] {
            assert!(!is_pattern(pattern), "{pattern}");
        }
        assert!(!is_pattern(&("a".repeat(254) + ".*")));
    }

    #[test]
    fn a_rule_has_its_angle_at_the_end() {
        for pattern in [">", "md.>", "md.*", "s-*.>", "a"] {
            assert!(is_rule_pattern(pattern), "{pattern}");
        }
        for pattern in ["a>", "a>b", ">.a", "md.>.x", "a.>>", "md.>."] {
            assert!(!is_rule_pattern(pattern), "{pattern}");
        }
    }
}
