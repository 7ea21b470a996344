//! What a text message of a client asks for, and the answer.

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

fn refuse(replies: &mut Vec<u8>, id: Option<&[u8]>, refusal: Refusal) {
    envelope::error(replies, id, refusal.code(), refusal.reason());
}
