//! What a message of a client asks for, and the answer.

use super::publish::{self, Answers};
use crate::conn::{EndReason, Payload};
use crate::hub::{Ask, Browse, ClientId, Hub, Publish, Recall, Refusal, Terms};
use crate::limits::TEXT_KEPT_BYTES_MAX;
use crate::proto::envelope::{self, NotJson, Parser, Request};
use crate::proto::msgpack::{self, Fault, binary};
use crate::proto::{json, ws};
use crate::time::Time;

/// RFC 6455 7.4.2: 4000 to 4999 are for private use.
const CLOSE_MALFORMED: u16 = 4400;

/// Understands the dialects and turns them into calls of the hub.
#[derive(Debug, Default)]
pub(super) struct Requests {
    parser: Parser,
    /// What came in another dialect, as JSON.
    text: Vec<u8>,
}

/// What is needed to answer one client.
pub(super) struct Asked<'a> {
    pub(super) hub: &'a mut Hub,
    pub(super) client: ClientId,
    pub(super) replies: &'a mut Vec<u8>,
    pub(super) now: Time,
}

/// A message that is none: the connection is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unacceptable {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) end: EndReason,
}

impl Unacceptable {
    const fn malformed(reason: &'static str) -> Self {
        Self { code: CLOSE_MALFORMED, reason, end: EndReason::Malformed }
    }

    const fn too_big(reason: &'static str) -> Self {
        let code = ws::close::MESSAGE_TOO_BIG;
        Self { code, reason, end: EndReason::UnacceptableMessage }
    }
}

impl From<NotJson> for Unacceptable {
    fn from(not_json: NotJson) -> Self {
        Self::malformed(not_json.reason())
    }
}

impl From<Fault> for Unacceptable {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLong => Self::too_big(fault.reason()),
            _ => Self::malformed(fault.reason()),
        }
    }
}

impl Requests {
    /// Does what `text` asks for. True when it was done or will be; false when the answer is an
    /// error.
    pub(super) fn handle(&mut self, text: &[u8], asked: Asked<'_>) -> Result<bool, Unacceptable> {
        let Asked { hub, client, replies, now } = asked;
        let message = self.parser.parse(text)?;
        let id = message.id;
        let request = match message.request {
            Ok(request) => request,
            Err(reject) => {
                envelope::error(replies, id, reject.code(), reject.reason());
                return Ok(false);
            }
        };
        let done = match request {
            Request::Subscribe { channel, since, conflate } => {
                let terms = Terms { since: since.map(Recall::from), conflate };
                hub.subscribe(client, id, channel, terms, replies, now)
            }
            Request::Unsubscribe { channel } => hub.unsubscribe(client, id, channel, replies, now),
            Request::SubscribePattern { pattern } => {
                hub.subscribe_pattern(client, id, pattern, replies, now)
            }
            Request::UnsubscribePattern { pattern } => {
                hub.unsubscribe_pattern(client, id, pattern, replies, now)
            }
            Request::Publish { channel, payload, key } => {
                hub.publish(client, Publish { channel, payload, id, key }, now)
            }
            Request::History { channel, from, limit } => {
                hub.browse(client, id, channel, Browse { from, limit }, now)
            }
            Request::Presence { channel, after, limit } => {
                let ask = Ask::Users { after: after.map(Into::into), limit };
                hub.call_roll(client, id, channel, ask, now)
            }
            Request::PresenceStats { channel } => {
                hub.call_roll(client, id, channel, Ask::Stats, now)
            }
            Request::Ping { t } => {
                envelope::pong(replies, id, t);
                Ok(())
            }
        };
        if let Err(refusal) = done {
            refuse(replies, id, refusal);
        }
        Ok(done.is_ok())
    }

    /// Does what `message`, in MessagePack, asks for: the same rules, and the same bound on what it
    /// is in JSON, because that is what others receive.
    pub(super) fn handle_msgpack(
        &mut self,
        message: &[u8],
        asked: Asked<'_>,
        message_bytes_max: usize,
    ) -> Result<bool, Unacceptable> {
        let mut text = std::mem::take(&mut self.text);
        let unpacked = msgpack::to_json(message, &mut text, message_bytes_max);
        let handled = match unpacked {
            Ok(()) => self.handle(&text, asked),
            Err(error) => Err(error.fault.into()),
        };
        self.give_back(text);
        handled
    }

    /// Publishes `payload`, which is all that the client has said. False when it is not taken.
    pub(super) fn handle_payload(
        &mut self,
        channel: &str,
        payload: Payload<'_>,
        asked: Asked<'_>,
        message_bytes_max: usize,
    ) -> Result<bool, Unacceptable> {
        let Asked { hub, client, now, .. } = asked;
        let mut publish = |payload: &[u8]| {
            hub.publish(client, Publish { channel, payload, id: None, key: None }, now)
        };
        let published = match payload {
            Payload::Text(text) => {
                json::document(text).map_err(NotJson::from)?;
                publish(text.trim_ascii())
            }
            Payload::Binary(bytes) if binary::bin_bytes(bytes.len()) > message_bytes_max => {
                let reason = "bytes are longer, as base64, than message_bytes_max";
                return Err(Unacceptable::too_big(reason));
            }
            Payload::Binary(bytes) => {
                let mut text = std::mem::take(&mut self.text);
                binary::write_bin(&mut text, bytes);
                let published = publish(&text);
                self.give_back(text);
                published
            }
        };
        if let Err(refusal) = published {
            hub.refuse(client, None, refusal);
        }
        Ok(published.is_ok())
    }

    /// Keeps the buffer for the next message, unless it is a large one.
    fn give_back(&mut self, mut text: Vec<u8>) {
        text.clear();
        text.shrink_to(TEXT_KEPT_BYTES_MAX);
        self.text = text;
    }
}

impl Requests {
    /// Publishes what `text` says, if it does, on behalf of the client; the answer is, or will be, in
    /// its place in `answers`. True when it was taken.
    pub(super) fn publish(&mut self, text: &[u8], asked: Asked<'_>, answers: &mut Answers) -> bool {
        let Asked { hub, client, now, .. } = asked;
        // Of what comes in frames the decoder has seen to that; subscribers get it in text frames.
        let parsed = match simdutf8::basic::from_utf8(text) {
            Ok(_) => self.parser.parse_publish(text).map_err(|not_json| not_json.reason()),
            Err(_) => Err("message is not UTF-8"),
        };
        let message = match parsed {
            Ok(message) => message,
            Err(reason) => {
                let number = answers.ask(None);
                answers.refuse(number, 400, "malformed", reason);
                return false;
            }
        };
        let number = answers.ask(message.id);
        match message.request {
            Ok(Request::Publish { channel, payload, key }) => {
                let id = number.to_be_bytes();
                match hub.publish(client, Publish { channel, payload, id: Some(&id), key }, now) {
                    Ok(()) => return true,
                    Err(refusal) => {
                        let status = publish::status(refusal);
                        answers.refuse(number, status, refusal.code(), refusal.reason());
                    }
                }
            }
            Ok(_) => unreachable!("only publishes are let through"),
            Err(reject) => answers.refuse(number, 400, reject.code(), reject.reason()),
        }
        false
    }
}

fn refuse(replies: &mut Vec<u8>, id: Option<&[u8]>, refusal: Refusal) {
    envelope::error(replies, id, refusal.code(), refusal.reason());
}
