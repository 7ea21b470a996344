//! A publish over HTTP: a body that comes in, object by object, and one answer to each.
//!
//! ```text
//! body      | {"channel":..}  LF  {"channel":..}  LF  {"chan        one object, or one a line
//! objects     ^ handed out        ^ handed out        ^ held until it is whole
//! answers   | 200 | {"type":"ack",..} | {"type":"ack",..} | ...     in the order of the objects
//! ```
//!
//! What the objects mean and what the answers say is for others to know.

use super::{EndReason, Event, Settings};
use crate::proto::envelope::{self, Bare};
use crate::proto::http::{
    Body, Head, Manner, Origin, Piece, Refusal, Request, write_chunk, write_continue,
    write_last_chunk, write_refusal,
};
use crate::time::Time;

/// The methods that the path knows.
pub(super) const METHODS: &str = "POST, OPTIONS";

const FOREIGN: Refusal =
    Refusal::Forbidden("pages of this origin may not publish here (see the configuration's cors)");
const OBJECT_TOO_LARGE: Refusal =
    Refusal::ContentTooLarge("the message is longer than limits.message_bytes_max");

/// A request to publish, and its answer.
#[derive(Debug)]
pub(super) struct Publish {
    body: Body,
    /// The whole body is read, or no more of it is wanted.
    is_read: bool,
    /// Why no more of it is wanted; said when everything else has been answered.
    fault: Option<Refusal>,
    /// Whether it has an object a line.
    by_line: bool,
    /// What came of an object, if it did not come in one piece.
    held: Vec<u8>,
    /// What is held has been handed out.
    is_handed_out: bool,
    /// A line that is too long goes by.
    is_skipping: bool,
    /// Objects handed out and not answered.
    unanswered: u32,
    answer: Answering,
    /// When the peer's time, and ours, is up.
    until: Time,
    /// The peer has said all it will say.
    pub(super) peer_ended: bool,
}

/// How the answer is written.
#[derive(Debug)]
struct Answering {
    /// HTTP/1.0 knows no chunks: the end of the connection is the end of the answer.
    in_chunks: bool,
    /// The head of an answer by line has been written.
    has_begun: bool,
    allowed: Option<Box<str>>,
}

/// What comes next of a publish.
pub(super) enum Step<'a> {
    /// More has to come.
    Nothing,
    /// An object.
    Object(&'a mut [u8]),
    /// A line that is too long.
    ObjectTooLong,
    /// It is over; the answer has been written.
    Over(Event<'static>),
}

/// The answer to one object.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The HTTP status, where the answer is all of the response.
    pub status: u16,
    /// When to try again, likewise.
    pub retry_after_s: Option<u32>,
    /// One JSON object.
    pub object: &'a [u8],
}

impl Publish {
    /// Takes a request whose head is `request`.
    pub(super) fn begin(
        request: &Request<'_>,
        origin: &Origin,
        now: Time,
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Result<Self, Refusal> {
        if request.method != "POST" {
            return Err(Refusal::MethodNotAllowed(METHODS));
        }
        // A browser sends it before it asks whether it may, if a form could have sent it too.
        if *origin == Origin::Foreign {
            return Err(FOREIGN);
        }
        let by_line = is_by_line(request.header("content-type").unwrap_or_default());
        let (bytes_max, too_large) = match by_line {
            true => (settings.body_bytes_max, Refusal::BODY_TOO_LARGE),
            false => (settings.message_bytes_max as u64, OBJECT_TOO_LARGE),
        };
        let body = Body::new(request.framing()?, bytes_max, too_large);
        body.check_length()?;
        // RFC 9110 10.1.1: an HTTP/1.0 client does not know what it would be told.
        if request.minor_version >= 1 && request.has_token("expect", "100-continue") {
            write_continue(replies);
        }
        Ok(Self {
            body,
            is_read: false,
            fault: None,
            by_line,
            held: Vec::new(),
            is_handed_out: false,
            is_skipping: false,
            unanswered: 0,
            answer: Answering {
                in_chunks: request.minor_version >= 1,
                has_begun: false,
                allowed: origin.allowed().map(Into::into),
            },
            until: now + settings.request_timeout,
            peer_ended: false,
        })
    }

    /// Moves `input` past the next object.
    pub(super) fn receive<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i mut [u8],
        replies: &mut Vec<u8>,
        message_bytes_max: usize,
    ) -> Step<'s> {
        if std::mem::take(&mut self.is_handed_out) {
            self.held = Vec::new();
        }
        while !self.is_read {
            let until = self.by_line.then_some(b'\n');
            match self.body.next(input, until) {
                Ok(None) => return Step::Nothing,
                Ok(Some(Piece::Data(piece))) => {
                    let is_whole = self.by_line && piece.last() == Some(&b'\n');
                    if self.is_skipping {
                        self.is_skipping = !is_whole;
                        continue;
                    }
                    // The line's end is none of its bytes.
                    let bytes = self.held.len() + piece.len() - usize::from(is_whole);
                    if bytes > message_bytes_max {
                        self.held = Vec::new();
                        self.is_skipping = !is_whole;
                        self.unanswered += 1;
                        return Step::ObjectTooLong;
                    }
                    if is_whole && self.held.is_empty() {
                        if !is_blank(piece) {
                            self.unanswered += 1;
                            return Step::Object(piece);
                        }
                        continue;
                    }
                    self.held.extend_from_slice(piece);
                    if is_whole && !self.forget_blank() {
                        return self.hand_out();
                    }
                }
                Ok(Some(Piece::End)) => {
                    self.is_read = true;
                    // An empty body is no object, and whoever reads it will say so.
                    if !self.by_line || !self.forget_blank() {
                        return self.hand_out();
                    }
                }
                Err(refusal) => {
                    self.is_read = true;
                    self.fault = Some(refusal);
                    self.held = Vec::new();
                }
            }
        }
        // There is no second request.
        *input = &mut [];
        match self.unanswered {
            0 => Step::Over(self.finish(replies)),
            _ => Step::Nothing,
        }
    }

    /// Answers the oldest object that has not been answered. With an event, that was all.
    pub(super) fn answer(
        &mut self,
        answer: &Answer<'_>,
        replies: &mut Vec<u8>,
    ) -> Option<Event<'static>> {
        self.unanswered = self.unanswered.checked_sub(1).expect("only what was asked is answered");
        if !self.by_line {
            let Answer { status, retry_after_s, object } = *answer;
            let head = Head::new(replies, status).allow(self.answer.allowed.as_deref());
            let head = match retry_after_s {
                Some(seconds) => head.number("Retry-After", u64::from(seconds)),
                None => head,
            };
            head.fresh("application/json").body(&[object, b"\n"].concat());
            return Some(Event::Ending(EndReason::Answered));
        }
        self.answer.line(answer.object, replies);
        (self.is_read && self.unanswered == 0).then(|| self.finish(replies))
    }

    /// Ends it before its time, without waiting for answers, for the reason `refusal`.
    pub(super) fn turn_away(&mut self, refusal: Refusal, replies: &mut Vec<u8>) {
        self.fault = Some(refusal);
        self.finish(replies);
    }

    /// What is to be said when the time is up.
    pub(super) const fn overdue(&self) -> (Refusal, EndReason) {
        match self.is_read {
            true => (Refusal::Unanswered, EndReason::Unanswered),
            false => (Refusal::RequestTimeout, EndReason::RequestTimeout),
        }
    }

    /// When the time is up.
    pub(super) const fn until(&self) -> Time {
        self.until
    }

    /// Whether the whole body is there and its answer is not.
    pub(super) const fn is_waiting(&self) -> bool {
        self.is_read
    }

    /// Bytes kept of an incomplete object.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Forgets what is incomplete.
    pub(super) fn abandon(&mut self) {
        self.held = Vec::new();
    }

    /// Ends the answer.
    fn finish(&mut self, replies: &mut Vec<u8>) -> Event<'static> {
        let event = match self.fault {
            Some(refusal) => Event::Refused(refusal),
            None => Event::Ending(EndReason::Answered),
        };
        match self.fault {
            Some(refusal) if !self.answer.has_begun => {
                let allowed = self.answer.allowed.as_deref();
                write_refusal(replies, &refusal, Manner { object: true, allowed });
                return event;
            }
            Some(refusal) => {
                let mut object = Vec::new();
                envelope::error(&mut Bare(&mut object), None, refusal.name(), refusal.reason());
                self.answer.line(&object, replies);
            }
            None => self.answer.begin(replies),
        }
        if self.answer.in_chunks {
            write_last_chunk(replies);
        }
        event
    }

    fn hand_out(&mut self) -> Step<'_> {
        self.is_handed_out = true;
        self.unanswered += 1;
        Step::Object(&mut self.held)
    }

    /// Whether what is held is nothing, and then it is not held any more.
    fn forget_blank(&mut self) -> bool {
        let is_blank = is_blank(&self.held);
        if is_blank {
            self.held = Vec::new();
        }
        is_blank
    }
}

impl Answering {
    fn begin(&mut self, replies: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let head = Head::new(replies, 200).allow(self.allowed.as_deref());
        let head = head.fresh("application/x-ndjson");
        match self.in_chunks {
            true => head.field("Transfer-Encoding", "chunked").end(),
            false => head.end(),
        }
    }

    fn line(&mut self, object: &[u8], replies: &mut Vec<u8>) {
        self.begin(replies);
        if self.in_chunks {
            write_chunk(replies, &[object, b"\n"]);
        } else {
            replies.extend_from_slice(object);
            replies.push(b'\n');
        }
    }
}

/// Whether a body of this media type has an object a line. Everything else is taken for one
/// object: `curl -d` calls it a form.
fn is_by_line(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"]
        .iter()
        .any(|by_line| media_type.eq_ignore_ascii_case(by_line))
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}
