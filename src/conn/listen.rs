//! Listening over HTTP: `GET /sse?channel=a&channel=b` is answered for as long as both like,
//! `GET /poll?channel=a&since=k3x9.120&timeout=25s` once there is something to say.
//!
//! Where the client goes on stands in `since`, or, of a stream that a browser takes up again, in
//! `Last-Event-ID`. What is said, and when, is for others to know.

use std::time::Duration;

use super::{EndReason, Settings};
use crate::limits::{POLL_TIMEOUT, POLL_TIMEOUT_MAX, STREAM_RETRY_MS};
use crate::proto::envelope::{CHANNEL_RULE, Since, is_channel, parse_cursor, parse_cursors};
use crate::proto::events;
use crate::proto::http::{Head, Manner, Origin, Refusal, Request, query, write_refusal};
use crate::time::{Time, parse_duration};

/// The methods that both paths know.
pub(super) const METHODS: &str = "GET, OPTIONS";

const FOREIGN: Refusal =
    Refusal::Forbidden("pages of this origin may not listen here (see the configuration's cors)");

/// How a client listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    /// To a stream of events.
    Stream,
    /// For one answer: with what there is by then, once there is something or the time is up.
    Poll {
        /// The time is up as soon as it is known where the channels are.
        at_once: bool,
    },
}

/// A channel that a client listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub channel: Box<str>,
    /// A cursor.
    since: Option<Box<str>>,
}

impl Wanted {
    /// Where the client goes on; with what comes next, if it does not say.
    #[must_use]
    pub fn since(&self) -> Option<Since<'_>> {
        self.since.as_deref().and_then(parse_cursor)
    }
}

/// A client that listens.
#[derive(Debug)]
pub(super) struct Listen {
    listens: Listens,
    /// For a stream, the next heartbeat; for a poll, when its time is up, or then ours.
    due: Time,
    allowed: Option<Box<str>>,
}

/// What the time asks of a client that listens.
pub(super) enum Due {
    Later(Time),
    /// A stream shows that it lives.
    Heartbeat(Time),
    /// A poll is to be answered with what there is.
    Answer(Time),
    /// A poll was to be answered and has not been.
    Unanswered,
}

impl Listen {
    /// Takes a request; of a stream the answer begins. Also says what the client wants.
    pub(super) fn begin(
        request: &Request<'_>,
        origin: &Origin,
        now: Time,
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Result<(Self, Vec<Wanted>), Refusal> {
        if request.method != "GET" {
            return Err(Refusal::MethodNotAllowed(METHODS));
        }
        // It could not read the answer: so it costs nothing.
        if *origin == Origin::Foreign {
            return Err(FOREIGN);
        }
        request.refuse_body()?;
        let Question { wanted, timeout } = Question::of(request, settings)?;
        let allowed = origin.allowed().map(Into::into);
        if request.path == "/poll" {
            let at_once = timeout.is_zero();
            let due = now + if at_once { settings.request_timeout } else { timeout };
            return Ok((Self { listens: Listens::Poll { at_once }, due, allowed }, wanted));
        }
        let head = Head::new(replies, 200).allow(allowed.as_deref());
        // nginx, and what copies it, would gather the events otherwise.
        head.fresh(events::CONTENT_TYPE).field("X-Accel-Buffering", "no").end();
        events::write_retry(replies, STREAM_RETRY_MS);
        let due = now + settings.ping_interval;
        Ok((Self { listens: Listens::Stream, due, allowed }, wanted))
    }

    pub(super) const fn listens(&self) -> Listens {
        self.listens
    }

    /// When to look at the time.
    pub(super) const fn due(&self) -> Time {
        self.due
    }

    /// Looks at the time. `interval` is from one heartbeat of a stream to the next.
    pub(super) fn expire(&mut self, now: Time, interval: Duration, settings: &Settings) -> Due {
        if self.due > now {
            return Due::Later(self.due);
        }
        match &mut self.listens {
            Listens::Stream => {
                self.due = now + interval;
                Due::Heartbeat(self.due)
            }
            Listens::Poll { at_once: at_once @ false } => {
                *at_once = true;
                self.due = now + settings.request_timeout;
                Due::Answer(self.due)
            }
            Listens::Poll { .. } => Due::Unanswered,
        }
    }

    /// Answers a poll with `events`, JSON objects with a comma behind each, and where it goes on.
    pub(super) fn answer(&self, cursors: &str, events: &[u8], replies: &mut Vec<u8>) -> EndReason {
        let Some(events) = events.strip_suffix(b",") else {
            let head = Head::new(replies, 204).allow(self.allowed.as_deref());
            head.field("Ringcast-Cursor", cursors).field("Cache-Control", "no-store").end();
            return EndReason::Answered;
        };
        let head = Head::new(replies, 200).allow(self.allowed.as_deref());
        let head = head.fresh("application/json").field("Ringcast-Cursor", cursors);
        let opening = format!("{{\"cursor\":\"{cursors}\",\"events\":[");
        head.body(&[opening.as_bytes(), events, b"]}\n"].concat());
        EndReason::Answered
    }

    /// Ends a poll without an answer. A stream has said that all is well: it ends, and no more.
    pub(super) fn turn_away(&self, refusal: &Refusal, replies: &mut Vec<u8>) {
        if let Listens::Poll { .. } = self.listens {
            let manner = Manner { object: true, allowed: self.allowed.as_deref() };
            write_refusal(replies, refusal, manner);
        }
    }
}

/// What a URL, and `Last-Event-ID`, ask for.
struct Question {
    wanted: Vec<Wanted>,
    timeout: Duration,
}

impl Question {
    fn of(request: &Request<'_>, settings: &Settings) -> Result<Self, Refusal> {
        let (mut wanted, mut since, mut timeout) = (Vec::<Wanted>::new(), None, None);
        for pair in query::pairs(request.query.unwrap_or_default()) {
            let (name, value) = pair?;
            let place = match &*name {
                "channel" => {
                    if !is_channel(&value) {
                        return Err(Refusal::BadRequest(CHANNEL_RULE));
                    }
                    if wanted.iter().any(|it| *it.channel == *value) {
                        return Err(Refusal::BadRequest("a channel is there twice"));
                    }
                    wanted.push(Wanted { channel: value.into(), since: None });
                    continue;
                }
                "since" => &mut since,
                "timeout" => &mut timeout,
                // So that newer clients can talk to older servers.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(Refusal::BadRequest("a parameter is there twice"));
            }
        }
        if wanted.is_empty() {
            return Err(Refusal::BadRequest("which channel? (/sse?channel=NAME&channel=NAME)"));
        }
        if wanted.len() > settings.channels_per_client_max {
            return Err(Refusal::BadRequest("more channels than limits.channels_per_client_max"));
        }
        // A browser asks for the same URL again, and says in the header how far it came.
        let last_event = request.header("last-event-id").filter(|id| !id.is_empty());
        if let Some(cursors) = last_event.or(since.as_deref()) {
            place_cursors(&mut wanted, cursors)?;
        }
        let timeout = match timeout.as_deref().map(parse_duration) {
            None => POLL_TIMEOUT,
            Some(Some(timeout)) => timeout.min(POLL_TIMEOUT_MAX),
            Some(None) => return Err(Refusal::BadRequest("timeout is a duration like 25s")),
        };
        Ok(Self { wanted, timeout })
    }
}

fn place_cursors(wanted: &mut [Wanted], cursors: &str) -> Result<(), Refusal> {
    const WRONG: Refusal = Refusal::BadRequest(
        "since and Last-Event-ID have one cursor for each channel, in the order of the channels, with \
         commas between: EPOCH.SEQ, latest, or -",
    );
    let mut written = cursors.split(',').zip(parse_cursors(cursors));
    for wanted in wanted {
        let (cursor, parsed) = written.next().ok_or(WRONG)?;
        wanted.since = parsed.map_err(|()| WRONG)?.map(|_| cursor.into());
    }
    if written.next().is_some() { Err(WRONG) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::tests::settings;
    use crate::proto::http::{HeaderSlots, parse_request};

    fn asked(target: &str, fields: &str) -> Result<(Vec<Wanted>, Duration), Refusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let mut slots = HeaderSlots::new();
        let request = parse_request(head.as_bytes(), &mut slots)?.expect("a whole head");
        let Question { wanted, timeout } = Question::of(&request, &settings())?;
        Ok((wanted, timeout))
    }

    fn wanted(target: &str, fields: &str) -> Vec<(String, Option<String>)> {
        let (wanted, _) = asked(target, fields).expect("it is good");
        let since = |it: &Wanted| it.since.as_deref().map(String::from);
        wanted.iter().map(|it| (it.channel.to_string(), since(it))).collect()
    }

    #[test]
    fn channels_are_listened_to_from_where_the_cursors_say_in_their_order() {
        let pairs = |pairs: &[(&str, Option<&str>)]| -> Vec<_> {
            pairs.iter().map(|(name, since)| (name.to_string(), since.map(String::from))).collect()
        };
        assert_eq!(wanted("/sse?channel=a", ""), pairs(&[("a", None)]));
        let target = "/sse?channel=b%2Cc&x=1&channel=a+b&since=k3.1,-";
        assert_eq!(wanted(target, ""), pairs(&[("b,c", Some("k3.1")), ("a b", None)]));
        let target = "/sse?since=latest&channel=a";
        assert_eq!(wanted(target, ""), pairs(&[("a", Some("latest"))]));
        assert_eq!(wanted(target, "Last-Event-ID:\r\n"), pairs(&[("a", Some("latest"))]));
        assert_eq!(wanted(target, "Last-Event-ID: k3.7\r\n"), pairs(&[("a", Some("k3.7"))]));
    }

    #[test]
    fn a_poll_waits_as_long_as_it_says_up_to_a_bound() {
        let timeout = |target| asked(target, "").map(|(_, timeout)| timeout);
        assert_eq!(timeout("/poll?channel=a"), Ok(POLL_TIMEOUT));
        assert_eq!(timeout("/poll?channel=a&timeout=0s"), Ok(Duration::ZERO));
        assert_eq!(timeout("/poll?channel=a&timeout=1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(timeout("/poll?channel=a&timeout=9h"), Ok(POLL_TIMEOUT_MAX));
    }

    #[test]
    fn what_asks_for_nothing_that_there_is_is_refused() {
        let many: String = (0..9).map(|index| format!("&channel={index}")).collect();
        for target in [
            "/sse",
            "/sse?channel=",
            "/sse?channel=%00",
            "/sse?channel=a&channel=a",
            "/sse?channel=a&since=k3",
            "/sse?channel=a&since=",
            "/sse?channel=a&since=k3.1,k3.1",
            "/sse?channel=a&channel=b&since=k3.1",
            "/sse?channel=a&since=-&since=-",
            "/poll?channel=a&timeout=25",
            "/poll?channel=a&timeout=-1s",
            "/poll?channel=a&timeout=1s&timeout=1s",
            "/sse?channel=%zz",
            &format!("/sse?{}", &many[1..]),
        ] {
            assert!(matches!(asked(target, ""), Err(Refusal::BadRequest(_))), "{target}");
        }
        let wrong = asked("/sse?channel=a&since=k3.1", "Last-Event-ID: 7\r\n");
        assert!(matches!(wrong, Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn the_answer_to_a_poll_says_where_the_next_one_goes_on() {
        let listens = Listens::Poll { at_once: false };
        let listen = Listen { listens, due: Time::START, allowed: None };
        let answered = |events: &[u8]| {
            let mut out = Vec::new();
            listen.answer("k3.7,-", events, &mut out);
            String::from_utf8(out).unwrap()
        };
        let empty = answered(b"");
        assert!(empty.starts_with("HTTP/1.1 204 No Content\r\n"), "{empty}");
        assert!(empty.contains("\r\nRingcast-Cursor: k3.7,-\r\n") && empty.ends_with("\r\n\r\n"));
        let full = answered(br#"{"seq":6},{"seq":7},"#);
        assert!(full.contains("\r\nRingcast-Cursor: k3.7,-\r\n"), "{full}");
        let body = r#"{"cursor":"k3.7,-","events":[{"seq":6},{"seq":7}]}"#;
        assert!(full.ends_with(&format!("\r\nContent-Length: {}\r\n\r\n{body}\n", body.len() + 1)));
    }
}
