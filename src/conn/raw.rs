//! What a client of ringcast.raw.v1 asks for in its URL: `/raw/CHANNEL?mode=both&since=k3x9.120`.

use crate::proto::envelope::{CHANNEL_RULE, Since, is_channel, parse_cursor};
use crate::proto::http::{Refusal, Request, percent, query};

/// The one channel of a client that sends and receives bare payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawChannel {
    /// Its name.
    pub channel: Box<str>,
    /// Whether what the client sends is published.
    pub publishes: bool,
    /// Whether the client is sent what is published.
    pub subscribes: bool,
    /// A cursor: where it goes on.
    since: Option<Box<str>>,
}

impl RawChannel {
    /// Where the channel's name begins.
    pub(super) const PATH: &str = "/raw/";

    /// What `request`, whose path begins with [`PATH`](Self::PATH), asks for.
    ///
    /// # Errors
    /// 400 when it does not name a channel, or asks for something that there is not.
    pub(super) fn of(request: &Request<'_>) -> Result<Self, Refusal> {
        let name = request.path.strip_prefix(Self::PATH).expect("routed here by its path");
        let channel = percent::decode_path(name)?;
        if !is_channel(&channel) {
            return Err(Refusal::BadRequest(CHANNEL_RULE));
        }
        let (mut mode, mut since) = (None, None);
        for pair in query::pairs(request.query.unwrap_or_default()) {
            let (name, value) = pair?;
            let place = match &*name {
                "mode" => &mut mode,
                "since" => &mut since,
                // So that newer clients can talk to older servers.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(Refusal::BadRequest("a parameter is there twice"));
            }
        }
        let (publishes, subscribes) = match mode.as_deref() {
            None | Some("both") => (true, true),
            Some("pub") => (true, false),
            Some("sub") => (false, true),
            _ => return Err(Refusal::BadRequest("mode is one of pub, sub, both")),
        };
        if since.as_deref().is_some_and(|cursor| parse_cursor(cursor).is_none()) {
            return Err(Refusal::BadRequest("since is EPOCH.SEQ or latest"));
        }
        Ok(Self { channel: channel.into(), publishes, subscribes, since: since.map(Into::into) })
    }

    /// Where it goes on.
    #[must_use]
    pub fn since(&self) -> Option<Since<'_>> {
        self.since.as_deref().and_then(parse_cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::{HeaderSlots, parse_request};

    fn asked(target: &str) -> Result<RawChannel, Refusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut slots = HeaderSlots::new();
        RawChannel::of(&parse_request(head.as_bytes(), &mut slots)?.expect("a whole head"))
    }

    #[test]
    fn the_channel_is_the_rest_of_the_path_and_the_mode_is_both_unless_it_is_said() {
        for (target, channel, publishes, subscribes) in [
            ("/raw/orders", "orders", true, true),
            ("/raw/orders?mode=both", "orders", true, true),
            ("/raw/a/b%20c+d?mode=pub", "a/b c+d", true, false),
            ("/raw/%C3%A9?x=1&mode=sub&mod=e", "\u{e9}", false, true),
            ("/raw//", "/", true, true),
        ] {
            let channel = channel.into();
            let expected = RawChannel { channel, publishes, subscribes, since: None };
            assert_eq!(asked(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn a_cursor_says_where_to_go_on() {
        for (target, since) in [
            ("/raw/a", None),
            ("/raw/a?since=k3x9.120", Some(Since::After { epoch: "k3x9", seq: 120 })),
            ("/raw/a?mode=sub&since=latest", Some(Since::Last(1))),
        ] {
            assert_eq!(asked(target).expect("it is good").since(), since, "{target}");
        }
    }

    #[test]
    fn what_names_no_channel_or_no_mode_is_refused() {
        let long = format!("/raw/{}", "c".repeat(256));
        for target in [
            "/raw/",
            "/raw/%00",
            "/raw/a%0Ab",
            "/raw/%ff",
            "/raw/%zz",
            "/raw/md.%2A",
            "/raw/md.>",
            &long,
            "/raw/a?mode",
            "/raw/a?mode=",
            "/raw/a?mode=PUB",
            "/raw/a?mode=pub&mode=sub",
            "/raw/a?since=",
            "/raw/a?since=120",
            "/raw/a?since=k3x9.1&since=k3x9.1",
        ] {
            assert!(matches!(asked(target), Err(Refusal::BadRequest(_))), "{target}");
        }
    }
}
