//! What a client asks: one JSON object in a text message.
//!
//! The work is shared. The scanner in [`json`] proves that the whole text is JSON and finds the
//! members by name; the payload, which is forwarded, stays exactly the bytes that were sent.
//! The strings we have to understand, `type` and `channel`, are cut out and handed to
//! `simd-json`, which unescapes them. So a payload of any size costs one scan, and the buffers
//! of a [`Parser`] stay at a few KiB whatever clients send.

use std::mem;
use std::time::Duration;

use simd_json::{Buffers, Node, Tape};

use super::channel::{CHANNEL_RULE, is_channel};
use super::pattern::{has_wildcard, is_pattern};
use super::since::{self, Since};
use crate::limits::{
    CHANNEL_NAME_BYTES_MAX, CONFLATION_INTERVAL_MAX, PATTERN_SEGMENTS_MAX, PATTERN_WILDCARDS_MAX,
    PUBLISH_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX, USER_BYTES_MAX,
};
use crate::proto::json::{self, Fault, JsonError, Member};

/// The longest way to write a channel's name in JSON: every byte as `\u00xx`, and the quotes.
const STRING_BYTES_MAX: usize = CHANNEL_NAME_BYTES_MAX * 6 + 2;

/// The same of a user's name.
const USER_STRING_BYTES_MAX: usize = USER_BYTES_MAX * 6 + 2;

/// One message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What the answer echoes: a JSON string or number, exactly as it was written.
    pub id: Option<&'a [u8]>,
    /// What is asked, or why it cannot be done.
    pub request: Result<Request<'a>, Reject>,
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// To receive a channel's messages.
    Subscribe {
        /// The channel's name.
        channel: &'a str,
        /// Where to go on; without it with what comes next.
        since: Option<Since<'a>>,
        /// The shortest time between two messages of one key, where messages are conflated.
        conflate: Option<Duration>,
    },
    /// To receive them no more.
    Unsubscribe {
        /// The channel's name.
        channel: &'a str,
    },
    /// To receive the messages of every channel that a pattern matches, also of those to come.
    SubscribePattern {
        /// The pattern.
        pattern: &'a str,
    },
    /// To receive them no more.
    UnsubscribePattern {
        /// The pattern.
        pattern: &'a str,
    },
    /// To send a message to a channel.
    Publish {
        /// The channel's name.
        channel: &'a str,
        /// The JSON value, exactly as it was written, without the whitespace around it.
        payload: &'a [u8],
        /// What tells it from other messages, as it was written: a string. Whoever sends the same
        /// again does not publish it twice.
        key: Option<&'a [u8]>,
    },
    /// To see what is kept of a channel.
    History {
        /// The channel's name.
        channel: &'a str,
        /// From this number on; without it from the oldest message that is kept.
        from: Option<u64>,
        /// At most so many messages.
        limit: Option<u32>,
    },
    /// To see who is there.
    Presence {
        /// The channel's name.
        channel: &'a str,
        /// The users behind this one in the order of names; without it from the first on.
        after: Option<&'a str>,
        /// At most so many users.
        limit: Option<u32>,
    },
    /// To see how many are there.
    PresenceStats {
        /// The channel's name.
        channel: &'a str,
    },
    /// To hear a pong.
    Ping {
        /// Any short JSON value, echoed exactly as it was written.
        t: Option<&'a [u8]>,
    },
}

/// The members of a message that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `type`
    Type,
    /// `id`
    Id,
    /// `channel`
    Channel,
    /// `payload`
    Payload,
    /// `t`
    T,
    /// `since`
    Since,
    /// `key`
    Key,
    /// `from`
    From,
    /// `limit`
    Limit,
    /// `conflate`
    Conflate,
    /// `after`
    After,
}

/// Why a message that is a JSON object is not done. The connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `type` is none of ours.
    UnknownType,
    /// `type` is one of ours, where only a publish is taken.
    NotPublish,
    /// Something this type needs is not there.
    MissingField(Field),
    /// Something is there as another kind of JSON value.
    WrongType(Field),
    /// The same field twice: which one was meant is not for us to guess.
    DuplicateField(Field),
    /// `type` or `channel` holds half of a surrogate pair, which no text can.
    BadString,
    /// The channel's name is empty, too long, or has control characters or wildcards.
    BadChannel,
    /// The pattern is not made as patterns are, or of too many parts.
    BadPattern,
    /// `id` is not a string or number, or is too long.
    BadId,
    /// `t` is too long.
    BadT,
    /// `since` is none of the ways to say where one was.
    BadSince,
    /// A pattern has no position.
    SincePattern,
    /// `conflate` is no duration, or too long a one.
    BadConflate,
    /// A pattern has no interval.
    ConflatePattern,
    /// `key` is not a string, or too long.
    BadKey,
    /// Authenticating with `auth`.
    AuthUnsupported,
    /// `from` or `limit` is not a number that can be.
    BadRange,
    /// `after` is not a string, or longer than a user's name.
    BadAfter,
}

impl Reject {
    /// The stable `code` of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownType | Self::NotPublish => "unknown_type",
            Self::MissingField(_) => "missing_field",
            Self::WrongType(_) => "wrong_type",
            Self::DuplicateField(_) => "duplicate_field",
            Self::BadString => "bad_string",
            Self::BadChannel => "bad_channel",
            Self::BadPattern => "bad_pattern",
            Self::BadId => "bad_id",
            Self::BadT => "bad_t",
            Self::BadSince | Self::SincePattern => "bad_since",
            Self::BadConflate | Self::ConflatePattern => "bad_conflate",
            Self::BadKey => "bad_key",
            Self::BadRange => "bad_range",
            Self::BadAfter => "bad_after",
            Self::AuthUnsupported => "unsupported",
        }
    }

    /// One sentence for the person who debugs the client.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownType => {
                "type is one of subscribe, unsubscribe, publish, history, presence, presence_stats, \
                 ping"
            }
            Self::NotPublish => "type is publish here, and need not be said",
            Self::MissingField(Field::Type) => "type is missing",
            Self::MissingField(Field::Channel) => "channel is missing",
            Self::MissingField(_) => "payload is missing",
            Self::WrongType(Field::Type) => "type must be a string",
            Self::WrongType(_) => "channel must be a string",
            Self::DuplicateField(Field::Type) => "type is there twice",
            Self::DuplicateField(Field::Id) => "id is there twice",
            Self::DuplicateField(Field::Channel) => "channel is there twice",
            Self::DuplicateField(Field::Payload) => "payload is there twice",
            Self::DuplicateField(Field::T) => "t is there twice",
            Self::DuplicateField(Field::Since) => "since is there twice",
            Self::DuplicateField(Field::Key) => "key is there twice",
            Self::DuplicateField(Field::From) => "from is there twice",
            Self::DuplicateField(Field::Limit) => "limit is there twice",
            Self::DuplicateField(Field::Conflate) => "conflate is there twice",
            Self::DuplicateField(Field::After) => "after is there twice",
            Self::BadString => "type or channel holds half of a surrogate pair",
            Self::BadChannel => CHANNEL_RULE,
            Self::BadPattern => {
                "a pattern has 1 to 16 segments between dots, each a name, or * or at the end > \
                 alone, and at most 8 wildcards"
            }
            Self::BadId => "id must be a string or a number of at most 128 bytes",
            Self::BadT => "t must have at most 128 bytes",
            Self::BadSince => "since is {\"epoch\":\"..\",\"seq\":..}, {\"last\":..} or \"latest\"",
            Self::SincePattern => {
                "a pattern has no position: subscribe to each channel since its own, then to the \
                 pattern"
            }
            Self::BadConflate => "conflate is a duration like \"500ms\" or \"2s\", at most \"1m\"",
            Self::ConflatePattern => {
                "a pattern has no interval: its channels have their own, unless you subscribe to \
                 one with another before"
            }
            Self::BadKey => "key must be a string of at most 128 bytes",
            Self::AuthUnsupported => "this server has no authentication: auth is not supported",
            Self::BadRange => "from and limit are whole numbers, and limit is not 0",
            Self::BadAfter => "after is the name of a user",
        }
    }
}

// Some reasons say their bounds in words.
const _: () = assert!(REQUEST_ID_BYTES_MAX == 128);
const _: () = assert!(PATTERN_SEGMENTS_MAX == 16 && PATTERN_WILDCARDS_MAX == 8);
const _: () = assert!(PUBLISH_KEY_BYTES_MAX == 128);
const _: () = assert!(CONFLATION_INTERVAL_MAX.as_secs() == 60);

/// Not a message at all: the connection closes with 4400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotJson {
    /// The text is not JSON.
    Syntax,
    /// It is JSON, but not an object.
    NotAnObject,
    /// It is nested too deep to be looked at.
    TooDeep,
}

impl NotJson {
    /// What the close frame says.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Syntax => "message is not JSON",
            Self::NotAnObject => "message is not a JSON object",
            Self::TooDeep => "message is nested too deep",
        }
    }
}

impl From<JsonError> for NotJson {
    fn from(error: JsonError) -> Self {
        match error.fault {
            Fault::TooDeep => Self::TooDeep,
            _ => Self::Syntax,
        }
    }
}

/// Reads messages; one per shard, for its buffers.
pub struct Parser {
    /// The strings that `simd-json` is to read, as an array; it unescapes them in place.
    strings: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Parser {
    /// A parser with buffers for anything that passes its bounds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            strings: Vec::with_capacity(STRING_BYTES_MAX * 2 + USER_STRING_BYTES_MAX),
            buffers: Buffers::new(STRING_BYTES_MAX * 2 + USER_STRING_BYTES_MAX),
            tape: Tape::null(),
        }
    }

    /// Reads one message. What it returns is borrowed from `text` and from the parser.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse<'a>(&'a mut self, text: &'a [u8]) -> Result<Message<'a>, NotJson> {
        let fields = Fields::scan(text)?;
        Ok(self.message(&fields))
    }

    /// Reads one message that can only be a publish, and need not say so.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse_publish<'a>(&'a mut self, text: &'a [u8]) -> Result<Message<'a>, NotJson> {
        let mut fields = Fields::scan(text)?;
        fields.kind.get_or_insert(br#""publish""#);
        let mut message = self.message(&fields);
        if !matches!(message.request, Ok(Request::Publish { .. }) | Err(_)) {
            message.request = Err(Reject::NotPublish);
        }
        Ok(message)
    }

    #[inline]
    fn message<'a>(&'a mut self, fields: &Fields<'a>) -> Message<'a> {
        let id = match fields.id {
            Some(id) if !is_id(id) => return Message { id: None, request: Err(Reject::BadId) },
            id => id,
        };
        Message { id, request: self.request(fields) }
    }

    fn request<'a>(&'a mut self, fields: &Fields<'a>) -> Result<Request<'a>, Reject> {
        if let Some(field) = fields.duplicate {
            return Err(Reject::DuplicateField(field));
        }
        let kind = fields.kind.ok_or(Reject::MissingField(Field::Type))?;
        if !is_string(kind) {
            return Err(Reject::WrongType(Field::Type));
        }
        // No type of ours comes near this, however it is escaped.
        if kind.len() > STRING_BYTES_MAX {
            return Err(Reject::UnknownType);
        }
        // Only a string of some length that a name can have is worth reading; what is wrong
        // with another is said once the type is known.
        let channel = fields.channel.filter(|raw| is_string(raw) && raw.len() <= STRING_BYTES_MAX);
        let after = match fields.after {
            Some(raw) if self.knows_after(kind)? => Some(raw),
            _ => None,
        };
        let after = after.filter(|raw| is_string(raw) && raw.len() <= USER_STRING_BYTES_MAX);
        let [kind, channel, after] = self.read_strings([Some(kind), channel, after])?;
        let kind = kind.expect("it was given");

        let pattern = || match channel.filter(|name| has_wildcard(name)) {
            Some(pattern) if !is_pattern(pattern) => Err(Reject::BadPattern),
            pattern => Ok(pattern),
        };
        let channel = || match (channel, fields.channel) {
            (Some(channel), _) if is_channel(channel) => Ok(channel),
            (None, None) => Err(Reject::MissingField(Field::Channel)),
            (None, Some(raw)) if !is_string(raw) => Err(Reject::WrongType(Field::Channel)),
            _ => Err(Reject::BadChannel),
        };
        match kind {
            "publish" => {
                let channel = channel()?;
                let payload = fields.payload.ok_or(Reject::MissingField(Field::Payload))?;
                // An absent member may be written as null, as many serializers do.
                let key = fields.key.filter(|key| *key != b"null");
                if key.is_some_and(|key| !is_string(key) || key.len() > PUBLISH_KEY_BYTES_MAX) {
                    return Err(Reject::BadKey);
                }
                Ok(Request::Publish { channel, payload, key })
            }
            "subscribe" => {
                let since = fields.since.filter(|since| *since != b"null");
                let conflate = fields.conflate.filter(|conflate| *conflate != b"null");
                if let Some(pattern) = pattern()? {
                    return match (since, conflate) {
                        (None, None) => Ok(Request::SubscribePattern { pattern }),
                        (Some(_), _) => Err(Reject::SincePattern),
                        (None, Some(_)) => Err(Reject::ConflatePattern),
                    };
                }
                let channel = channel()?;
                let since = since.map(|raw| since::parse(raw).ok_or(Reject::BadSince));
                let conflate = conflate.map(|raw| since::interval(raw).ok_or(Reject::BadConflate));
                Ok(Request::Subscribe {
                    channel,
                    since: since.transpose()?,
                    conflate: conflate.transpose()?,
                })
            }
            "unsubscribe" => match pattern()? {
                Some(pattern) => Ok(Request::UnsubscribePattern { pattern }),
                None => Ok(Request::Unsubscribe { channel: channel()? }),
            },
            "ping" => match fields.t {
                Some(t) if t.len() > REQUEST_ID_BYTES_MAX => Err(Reject::BadT),
                t => Ok(Request::Ping { t }),
            },
            "auth" => Err(Reject::AuthUnsupported),
            "history" => {
                let channel = channel()?;
                Ok(Request::History { channel, from: number(fields.from)?, limit: limit(fields)? })
            }
            "presence" => {
                let channel = channel()?;
                let is_given = fields.after.is_some_and(|raw| raw != b"null");
                if is_given && after.is_none() {
                    return Err(Reject::BadAfter);
                }
                Ok(Request::Presence { channel, after, limit: limit(fields)? })
            }
            "presence_stats" => Ok(Request::PresenceStats { channel: channel()? }),
            _ => Err(Reject::UnknownType),
        }
    }

    /// Whether `after` means something in requests of this `kind`: in others, whatever it is, it is not
    /// looked at.
    #[cold]
    fn knows_after(&mut self, kind: &[u8]) -> Result<bool, Reject> {
        let [kind, ..] = self.read_strings([Some(kind), None, None])?;
        Ok(kind == Some("presence"))
    }

    /// Has `simd-json` read up to three strings, the first of them surely, that were scanned before.
    fn read_strings<'a>(
        &'a mut self,
        written: [Option<&[u8]>; 3],
    ) -> Result<[Option<&'a str>; 3], Reject> {
        self.strings.clear();
        self.strings.push(b'[');
        for (index, raw) in written.into_iter().flatten().enumerate() {
            if index > 0 {
                self.strings.push(b',');
            }
            self.strings.extend_from_slice(raw);
        }
        self.strings.push(b']');

        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let outcome = simd_json::fill_tape(&mut self.strings, &mut self.buffers, &mut tape);
        let mut read = tape.0.iter().skip(1);
        let strings = match outcome {
            Ok(()) => Ok(written.map(|raw| match raw.and_then(|_| read.next()) {
                Some(Node::String(string)) => Some(*string),
                _ => None,
            })),
            // The scanner has let through nothing else that `simd-json` stumbles over.
            Err(_) => Err(Reject::BadString),
        };
        self.tape = tape.reset();
        strings
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Parser").finish_non_exhaustive()
    }
}

/// The members that mean something, as they are written. Others are ignored, so that newer
/// clients can talk to older servers.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    channel: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    t: Option<&'a [u8]>,
    since: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    from: Option<&'a [u8]>,
    limit: Option<&'a [u8]>,
    conflate: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    duplicate: Option<Field>,
}

impl<'a> Fields<'a> {
    /// Proves the whole text and finds its members.
    fn scan(text: &'a [u8]) -> Result<Self, NotJson> {
        let Some(members) = json::members(text) else {
            json::document(text)?;
            return Err(NotJson::NotAnObject);
        };
        let mut fields = Self::default();
        for member in members {
            let member = member?;
            let Some(field) = field_of(&member) else { continue };
            let place = match field {
                Field::Type => &mut fields.kind,
                Field::Id => &mut fields.id,
                Field::Channel => &mut fields.channel,
                Field::Payload => &mut fields.payload,
                Field::T => &mut fields.t,
                Field::Since => &mut fields.since,
                Field::Key => &mut fields.key,
                Field::From => &mut fields.from,
                Field::Limit => &mut fields.limit,
                Field::Conflate => &mut fields.conflate,
                Field::After => &mut fields.after,
            };
            if place.replace(member.value).is_some() {
                fields.duplicate = Some(field);
            }
        }
        Ok(fields)
    }
}

fn field_of(member: &Member<'_>) -> Option<Field> {
    // The longest way to write the longest of the names, so that a long one is not looked at
    // once for each.
    const KEY_BYTES_MAX: usize = "conflate".len() * 6 + 2;
    const NAMES: [(&str, Field); 11] = [
        ("type", Field::Type),
        ("id", Field::Id),
        ("channel", Field::Channel),
        ("payload", Field::Payload),
        ("t", Field::T),
        ("since", Field::Since),
        ("key", Field::Key),
        ("from", Field::From),
        ("limit", Field::Limit),
        ("conflate", Field::Conflate),
        ("after", Field::After),
    ];
    if member.key.len() > KEY_BYTES_MAX {
        return None;
    }
    NAMES.iter().find(|(name, _)| member.is_named(name)).map(|(_, field)| *field)
}

/// A number that may be absent.
fn number(raw: Option<&[u8]>) -> Result<Option<u64>, Reject> {
    match raw {
        None | Some(b"null") => Ok(None),
        Some(raw) => since::number(raw).map(Some).ok_or(Reject::BadRange),
    }
}

/// How much a client wants at most.
fn limit(fields: &Fields<'_>) -> Result<Option<u32>, Reject> {
    match number(fields.limit)? {
        Some(0) => Err(Reject::BadRange),
        limit => Ok(limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX))),
    }
}

fn is_string(raw: &[u8]) -> bool {
    raw.first() == Some(&b'"')
}

fn is_id(raw: &[u8]) -> bool {
    matches!(raw.first(), Some(b'"' | b'-' | b'0'..=b'9')) && raw.len() <= REQUEST_ID_BYTES_MAX
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
