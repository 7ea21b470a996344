//! Who is in a channel: how a client may call itself, what is answered to who asks, and what is told of
//! those who come and go.

use super::reply::{Framed, object};
use crate::limits::USER_BYTES_MAX;
use crate::proto::json;

/// Whether a client may call itself `name`: 1 to [`USER_BYTES_MAX`] bytes, no control characters.
#[must_use]
pub fn is_user(name: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// What is said of a name that cannot be a user's.
pub const USER_RULE: &str = "user is a name of 1 to 64 bytes of UTF-8 without control characters";

// The sentence says its bound in words.
const _: () = assert!(USER_BYTES_MAX == 64);

/// What a page of users begins with.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// Who is where.
    pub channel: &'a str,
    /// Where those who come and go are told, if they are: the life of the numbering, and the newest
    /// message.
    pub place: Option<(&'a str, u64)>,
    /// How many users there are.
    pub total: u64,
    /// Connections that found no room on the list.
    pub unlisted: u64,
    /// Whether there are users behind those of this page.
    pub has_more: bool,
}

/// `{"type":"presence","id":..,"channel":"..","epoch":"..","seq":..,"total":..,"more":..,"users":[{"user":"..","connections":..},..]}`,
/// without `epoch` and `seq` where nobody is told; with `"unlisted":..` where the list is not all.
pub fn presence<'u>(
    out: &mut impl Framed,
    id: Option<&[u8]>,
    presence: &Presence<'_>,
    users: impl Iterator<Item = (&'u str, u32)>,
) {
    let Presence { channel, place, total, unlisted, has_more } = presence;
    object(out, b"presence", |object| {
        object.id(id);
        object.string("channel", channel);
        if let Some((epoch, seq)) = place {
            object.string("epoch", epoch);
            object.number("seq", *seq);
        }
        object.number("total", *total);
        if *unlisted > 0 {
            object.number("unlisted", *unlisted);
        }
        object.boolean("more", *has_more);
        object.list("users", users, |body, (user, connections)| {
            body.extend_from_slice(b"{\"user\":");
            json::write_string(body, user);
            body.extend_from_slice(b",\"connections\":");
            json::write_number(body, connections.into());
            body.push(b'}');
        });
    });
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Users on the list.
    pub users: u64,
    /// Connections, of users and of others.
    pub connections: u64,
    /// Of these, those that have not said whose they are.
    pub anonymous: u64,
    /// Of these, those that found no room on the list.
    pub unlisted: u64,
}

/// `{"type":"presence_stats","id":..,"channel":"..","users":..,"connections":..,"anonymous":..}`, with
/// `"unlisted":..` where the list is not all.
pub fn presence_stats(
    out: &mut impl Framed,
    id: Option<&[u8]>,
    channel: &str,
    stats: &PresenceStats,
) {
    object(out, b"presence_stats", |object| {
        object.id(id);
        object.string("channel", channel);
        object.number("users", stats.users);
        object.number("connections", stats.connections);
        object.number("anonymous", stats.anonymous);
        if stats.unlisted > 0 {
            object.number("unlisted", stats.unlisted);
        }
    });
}

/// The payload `{"event":"..","users":["..",..],"total":..}`: these have come, or these have gone, and so
/// many are there now.
pub fn presence_event<'u>(
    event: &str,
    users: impl Iterator<Item = &'u str>,
    total: u64,
) -> Vec<u8> {
    let mut body = begin_event(event);
    body.extend_from_slice(b",\"users\":[");
    for (index, user) in users.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        json::write_string(&mut body, user);
    }
    body.push(b']');
    end_event(body, total)
}

/// The payload `{"event":"presence.many","joined":..,"left":..,"total":..}`: more have come and gone than
/// are told by name.
#[must_use]
pub fn presence_many(joined: u64, left: u64, total: u64) -> Vec<u8> {
    let mut body = begin_event("presence.many");
    for (name, number) in [(&b",\"joined\":"[..], joined), (b",\"left\":", left)] {
        body.extend_from_slice(name);
        json::write_number(&mut body, number);
    }
    end_event(body, total)
}

fn begin_event(event: &str) -> Vec<u8> {
    let mut body = b"{\"event\":".to_vec();
    json::write_string(&mut body, event);
    body
}

fn end_event(mut body: Vec<u8>, total: u64) -> Vec<u8> {
    body.extend_from_slice(b",\"total\":");
    json::write_number(&mut body, total);
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::super::reply::Bare;
    use super::*;

    fn written(write: impl FnOnce(&mut Bare<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Bare(&mut out));
        assert_eq!(json::document(&out), Ok(()));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_user_has_1_to_64_bytes_and_no_control_characters() {
        for name in ["a", "ann@example.org", "\u{e9}", "*", "\"", &"u".repeat(64)] {
            assert!(is_user(name), "{name:?}");
        }
        for name in ["", "a\n", "\u{85}", &"u".repeat(65), &"\u{20ac}".repeat(22)] {
            assert!(!is_user(name), "{name:?}");
        }
    }

    #[test]
    fn a_list_looks_as_the_protocol_says() {
        let page = Presence {
            channel: "room",
            place: Some(("k3x9", 41)),
            total: 17,
            unlisted: 0,
            has_more: true,
        };
        let users = [("bob", 3), ("c\"d", 0)];
        assert_eq!(
            written(|out| presence(out, Some(b"1"), &page, users.into_iter())),
            r#"{"type":"presence","id":1,"channel":"room","epoch":"k3x9","seq":41,"total":17,"more":true,"users":[{"user":"bob","connections":3},{"user":"c\"d","connections":0}]}"#
        );
        let page = Presence { place: None, unlisted: 2, has_more: false, ..page };
        assert_eq!(
            written(|out| presence(out, None, &page, [].into_iter())),
            r#"{"type":"presence","channel":"room","total":17,"unlisted":2,"more":false,"users":[]}"#
        );
        let stats = PresenceStats { users: 17, connections: 40, anonymous: 3, unlisted: 0 };
        assert_eq!(
            written(|out| presence_stats(out, Some(b"2"), "room", &stats)),
            r#"{"type":"presence_stats","id":2,"channel":"room","users":17,"connections":40,"anonymous":3}"#
        );
        let stats = PresenceStats { unlisted: 5, ..stats };
        assert_eq!(
            written(|out| presence_stats(out, None, "room", &stats)),
            r#"{"type":"presence_stats","channel":"room","users":17,"connections":40,"anonymous":3,"unlisted":5}"#
        );
    }

    #[test]
    fn who_comes_and_goes_is_told_by_name_or_in_numbers() {
        let event = |event, users: &[&str]| {
            String::from_utf8(presence_event(event, users.iter().copied(), 17)).unwrap()
        };
        assert_eq!(
            event("presence.join", &["ann", "b\\c"]),
            r#"{"event":"presence.join","users":["ann","b\\c"],"total":17}"#
        );
        assert_eq!(
            event("presence.leave", &["ann"]),
            r#"{"event":"presence.leave","users":["ann"],"total":17}"#
        );
        assert_eq!(
            String::from_utf8(presence_many(12_000, 300, 17)).unwrap(),
            r#"{"event":"presence.many","joined":12000,"left":300,"total":17}"#
        );
    }
}
