//! What somebody who misspelled a name most likely meant.

use super::keys::last;

/// The name among `names` that somebody who wrote `written` most likely meant, if any is near.
/// The right name in the wrong table is near, too.
pub(super) fn nearest<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |name: &str| {
        let whole = strsim::damerau_levenshtein(written, name);
        let end = strsim::damerau_levenshtein(last(written), last(name));
        whole.min(end + 1)
    };
    let tolerated = (last(written).chars().count() / 3).max(2);
    names
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;

    #[test]
    fn the_nearest_name_is_found_across_slips_and_tables() {
        for (written, expected) in [
            ("limits.message_byte_max", Some("limits.message_bytes_max")),
            ("limits.max_connections", None),
            ("message_bytes_max", Some("limits.message_bytes_max")),
            ("limit.connections_max", Some("limits.connections_max")),
            ("timing.backlog", Some("socket.backlog")),
            ("lisen", Some("listen")),
            ("shard", Some("shards")),
            ("completely_different", None),
            ("limits.outbox_message_max", Some("limits.outbox_messages_max")),
        ] {
            assert_eq!(nearest(written, KEYS.iter().map(|key| key.name)), expected, "{written}");
        }
    }
}
