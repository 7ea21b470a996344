//! What a text message of a client asks for, and the answer.

use super::publish::{self, Answers};
use crate::hub::{Browse, ClientId, Hub, Publish, Recall, Refusal};
use crate::proto::envelope::{self, NotJson, Parser, Request};
use crate::time::Time;

/// Understands ringcast.json.v1 and turns it into calls of the hub.
#[derive(Debug, Default)]
pub(super) struct Requests {
    parser: Parser,
}

/// What is needed to answer one client.
pub(super) struct Asked<'a> {
    pub(super) hub: &'a mut Hub,
    pub(super) client: ClientId,
    pub(super) replies: &'a mut Vec<u8>,
    pub(super) now: Time,
}

impl Requests {
    /// Does what `text` asks for. True when it was done or will be; false when the answer is an
    /// error.
    pub(super) fn handle(&mut self, text: &mut [u8], asked: Asked<'_>) -> Result<bool, NotJson> {
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
            Request::Subscribe { channel, since } => {
                hub.subscribe(client, id, channel, since.map(Recall::from), replies, now)
            }
            Request::Unsubscribe { channel } => hub.unsubscribe(client, id, channel, replies, now),
            Request::Publish { channel, payload, key } => {
                hub.publish(client, Publish { channel, payload, id, key }, now)
            }
            Request::History { channel, from, limit } => {
                hub.browse(client, id, channel, Browse { from, limit }, now)
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
}

impl Requests {
    /// Publishes what `text` says, if it does, on behalf of `client`; the answer is, or will be, in
    /// its place in `answers`. True when it was taken.
    pub(super) fn publish(
        &mut self,
        text: &mut [u8],
        hub: &mut Hub,
        client: ClientId,
        answers: &mut Answers,
        now: Time,
    ) -> bool {
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
