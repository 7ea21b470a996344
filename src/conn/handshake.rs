//! The first phase: an HTTP request head that becomes a WebSocket, a publish, a listener, a page, or a
//! refusal.

use super::listen::{self, Listen};
use super::publish::{self, Publish};
use super::{Page, RawChannel, Settings, Wanted, user};
use crate::limits::REQUEST_HEAD_BYTES_MAX;
use crate::proto::dialect::Dialect;
use crate::proto::http::{self, HeaderSlots, Manner, Refusal, Request};
use crate::proto::ws::extension::Agreement;
use crate::proto::ws::handshake;
use crate::time::Time;

/// A request head that may still be incomplete.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    /// What came of it, if it did not come in one piece.
    head: Vec<u8>,
}

/// What the other end of an open connection talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// The hub.
    Hub,
    /// Itself.
    Echo,
}

/// What came of a request head.
#[derive(Debug)]
pub(super) enum Outcome {
    /// More bytes are needed.
    Incomplete,
    /// It is a WebSocket now; the answer has been written.
    Upgraded {
        /// What it talks to.
        service: Service,
        /// How it speaks.
        dialect: Dialect,
        /// For [`Dialect::Raw`].
        channel: Option<RawChannel>,
        /// What was agreed on about compression.
        agreement: Option<Agreement>,
        /// Who it says that it is.
        user: Option<Box<str>>,
    },
    /// Objects to be published follow, and are to be answered.
    Publishes(Box<Publish>),
    /// It wants to hear of these channels; of a stream the answer has begun. And who it says it is.
    Listens(Box<Listen>, Vec<Wanted>, Option<Box<str>>),
    /// It was answered with a page and the connection ends.
    Served,
    /// It was answered with all there is to say and the connection ends.
    Answered,
    /// It was refused and the connection ends.
    Refused(Refusal),
}

impl Handshake {
    /// Moves `input` past the request head.
    pub(super) fn receive(
        &mut self,
        now: Time,
        input: &mut &mut [u8],
        replies: &mut Vec<u8>,
        settings: &Settings,
    ) -> Outcome {
        if self.head.is_empty() && http::head_end(input, 0).is_some() {
            let (outcome, used) = answer(now, input, replies, settings);
            *input = &mut std::mem::take(input)[used..];
            return outcome;
        }
        // Kept up to the bound and no further: what is beyond it makes no head complete.
        let before = self.head.len();
        let room = (REQUEST_HEAD_BYTES_MAX - before).min(input.len());
        self.head.extend_from_slice(&input[..room]);
        if http::head_end(&self.head, before).is_none()
            && self.head.len() < REQUEST_HEAD_BYTES_MAX
            && !http::is_hopeless(&self.head)
        {
            *input = &mut std::mem::take(input)[room..];
            return Outcome::Incomplete;
        }
        let head = std::mem::take(&mut self.head);
        let (outcome, used) = answer(now, &head, replies, settings);
        // What was kept before this input ended inside the head, so the head's end is in it.
        *input = &mut std::mem::take(input)[used.saturating_sub(before).min(room)..];
        outcome
    }

    /// Bytes kept of an incomplete head.
    pub(super) fn held_bytes(&self) -> usize {
        self.head.capacity()
    }
}

/// Answers the request at the front of `bytes`; also says how long its head is.
fn answer(now: Time, bytes: &[u8], replies: &mut Vec<u8>, settings: &Settings) -> (Outcome, usize) {
    let mut slots = HeaderSlots::new();
    if http::is_hopeless(bytes) {
        let refusal = Refusal::BadRequest("this is not HTTP; ringcast itself speaks no TLS");
        return (refuse(refusal, replies), bytes.len());
    }
    let parsed = http::parse_request(bytes, &mut slots);
    let request = match parsed {
        Ok(Some(request)) => request,
        // The empty line is there, or the bound is reached: it gets no more complete.
        Ok(None) => return (refuse(Refusal::HeadTooLarge, replies), bytes.len()),
        Err(refusal) => return (refuse(refusal, replies), bytes.len()),
    };
    let outcome = match route(&request, settings) {
        Ok(Route::Upgrade(path)) => upgrade(&request, path, replies, settings),
        Ok(Route::Page(page)) => {
            let head_only = request.method == "HEAD";
            http::write_response(replies, 200, page.content_type, page.body, head_only);
            Ok(Outcome::Served)
        }
        Ok(Route::Publish) => Ok(publish(now, &request, replies, settings)),
        Ok(Route::Listen) => Ok(listen(now, &request, replies, settings)),
        Err(refusal) => Err(refusal),
    };
    (outcome.unwrap_or_else(|refusal| refuse(refusal, replies)), request.head_bytes)
}

enum Route<'a> {
    Upgrade(Path),
    Publish,
    Listen,
    Page(&'a Page),
}

/// Where there is a WebSocket.
#[derive(Clone, Copy)]
enum Path {
    Hub,
    Raw,
    Echo,
}

fn route<'a>(request: &Request<'_>, settings: &'a Settings) -> Result<Route<'a>, Refusal> {
    match request.path {
        "/ws" => Ok(Route::Upgrade(Path::Hub)),
        "/publish" => Ok(Route::Publish),
        "/sse" | "/poll" => Ok(Route::Listen),
        "/echo" if settings.echo => Ok(Route::Upgrade(Path::Echo)),
        path if path.starts_with(RawChannel::PATH) => Ok(Route::Upgrade(Path::Raw)),
        path => {
            let page = settings.pages.iter().find(|page| page.path == path);
            let page = page.ok_or(Refusal::NotFound)?;
            if !matches!(request.method, "GET" | "HEAD") {
                return Err(Refusal::MethodNotAllowed("GET, HEAD"));
            }
            request.refuse_body()?;
            Ok(Route::Page(page))
        }
    }
}

fn upgrade(
    request: &Request<'_>,
    path: Path,
    replies: &mut Vec<u8>,
    settings: &Settings,
) -> Result<Outcome, Refusal> {
    let upgrade = handshake::check(request)?;
    let spoken: &[Dialect] = match path {
        Path::Hub => &[Dialect::Json, Dialect::Msgpack],
        Path::Raw => &[Dialect::Raw],
        Path::Echo => &[Dialect::Json],
    };
    let chosen = handshake::choose_protocol(&upgrade, spoken);
    let (service, dialect) = match path {
        Path::Hub => (Service::Hub, chosen.unwrap_or_default()),
        Path::Raw => (Service::Hub, Dialect::Raw),
        Path::Echo => (Service::Echo, Dialect::default()),
    };
    let channel = match dialect {
        Dialect::Raw => Some(RawChannel::of(request)?),
        _ => None,
    };
    let user = user::of(request)?;
    let agreement = match settings.compression {
        true => upgrade.compression(settings.compression_window_bytes_max)?,
        false => None,
    };
    handshake::write_accept(replies, upgrade.key, chosen.map(Dialect::name), agreement.as_ref());
    Ok(Outcome::Upgraded { service, dialect, channel, agreement, user })
}

/// Everything but the objects themselves is said here; also to a browser that asks beforehand.
fn publish(
    now: Time,
    request: &Request<'_>,
    replies: &mut Vec<u8>,
    settings: &Settings,
) -> Outcome {
    let origin = settings.cors.judge(request);
    if request.method == "OPTIONS" {
        http::write_preflight(replies, publish::METHODS, &origin);
        return Outcome::Answered;
    }
    match Publish::begin(request, &origin, now, replies, settings) {
        Ok(publish) => Outcome::Publishes(Box::new(publish)),
        Err(refusal) => {
            let manner = Manner { object: true, allowed: origin.allowed() };
            http::write_refusal(replies, &refusal, manner);
            Outcome::Refused(refusal)
        }
    }
}

/// What is listened to, and whether it may be, is said here; also to a browser that asks beforehand.
fn listen(now: Time, request: &Request<'_>, replies: &mut Vec<u8>, settings: &Settings) -> Outcome {
    let origin = settings.cors.judge(request);
    if request.method == "OPTIONS" {
        http::write_preflight(replies, listen::METHODS, &origin);
        return Outcome::Answered;
    }
    let begun = user::of(request)
        .and_then(|user| Ok((user, Listen::begin(request, &origin, now, replies, settings)?)));
    match begun {
        Ok((user, (listen, wanted))) => Outcome::Listens(Box::new(listen), wanted, user),
        Err(refusal) => {
            let manner = Manner { object: true, allowed: origin.allowed() };
            http::write_refusal(replies, &refusal, manner);
            Outcome::Refused(refusal)
        }
    }
}

fn refuse(refusal: Refusal, replies: &mut Vec<u8>) -> Outcome {
    http::write_refusal(replies, &refusal, Manner::default());
    Outcome::Refused(refusal)
}
