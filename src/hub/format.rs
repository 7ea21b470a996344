//! The forms in which messages leave: each client has one, and each message is encoded once for
//! each form that somebody wants.

use bytes::Bytes;

use super::segment::{Frames, Segment};
use crate::proto::dialect::Dialect;
use crate::proto::ws::deflate::{Deflater, Reach};
use crate::proto::ws::frame::{FrameHeader, Opcode, Role};

/// How a client's messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Format {
    /// ringcast.json.v1 in text frames: what a segment is made of.
    #[default]
    Json,
    /// The same in compressed frames (RFC 7692), where that makes them shorter.
    JsonDeflate,
    /// The same for clients that allow only small windows.
    JsonDeflateNarrow,
    /// ringcast.msgpack.v1 in binary frames.
    Msgpack,
    /// Bare payloads, as in ringcast.raw.v1.
    Raw,
}

impl Format {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 5] =
        [Self::Json, Self::JsonDeflate, Self::JsonDeflateNarrow, Self::Msgpack, Self::Raw];

    /// How many there are beside the one that every segment has.
    pub(super) const VARIANTS: usize = Self::ALL.len() - 1;

    /// The form for a client that speaks `dialect` and with whom this was agreed on about
    /// compression. What is not JSON leaves as it is: MessagePack and bytes have less to gain.
    #[must_use]
    pub const fn of(dialect: Dialect, compression: Option<Reach>) -> Self {
        match (dialect, compression) {
            (Dialect::Json, None) => Self::Json,
            (Dialect::Json, Some(Reach::Wide)) => Self::JsonDeflate,
            (Dialect::Json, Some(Reach::Narrow)) => Self::JsonDeflateNarrow,
            (Dialect::Msgpack, _) => Self::Msgpack,
            (Dialect::Raw, _) => Self::Raw,
        }
    }

    /// The dialect it is a form of.
    pub(super) const fn dialect(self) -> Dialect {
        match self {
            Self::Json | Self::JsonDeflate | Self::JsonDeflateNarrow => Dialect::Json,
            Self::Msgpack => Dialect::Msgpack,
            Self::Raw => Dialect::Raw,
        }
    }

    /// Whether its clients can be told of gaps and refusals. Others are closed instead, so that they
    /// know.
    pub(super) const fn has_notices(self) -> bool {
        !matches!(self, Self::Raw)
    }

    /// Its stable label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonDeflate => "json_deflate",
            Self::JsonDeflateNarrow => "json_deflate_narrow",
            Self::Msgpack => "msgpack",
            Self::Raw => "raw",
        }
    }

    /// Its place among a segment's variants; none for the form that a segment has itself.
    pub(super) const fn variant(self) -> Option<usize> {
        (self as usize).checked_sub(1)
    }
}

/// Encodes messages in other forms than the one they are published in.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    frames: Vec<u8>,
    /// Messages encoded, by [`Format`].
    encoded: [u64; Format::ALL.len()],
}

impl Encoder {
    /// One that compresses at `level`. Its memory is taken when it is needed.
    #[must_use]
    pub fn new(level: u32) -> Self {
        Self { deflater: Deflater::new(level), frames: Vec::new(), encoded: [0; Format::ALL.len()] }
    }

    /// Messages encoded so far, by [`Format`].
    #[must_use]
    pub const fn encoded(&self) -> [u64; Format::ALL.len()] {
        self.encoded
    }

    /// `messages` were encoded in the form that segments have.
    pub(super) fn count_json(&mut self, messages: usize) {
        self.encoded[Format::Json as usize] += messages as u64;
    }

    /// The messages of `segment` in another form; none if they are the same in it.
    #[cold]
    pub(super) fn encode(&mut self, segment: &Segment, format: Format) -> Option<Frames> {
        self.frames.clear();
        let mut changed = 0;
        let ends = (0..segment.messages())
            .map(|index| {
                let frame = segment.bytes(segment.start(index), segment.start(index + 1));
                changed += u64::from(self.write(format, frame));
                u32::try_from(self.frames.len()).expect("a segment is far below 4 GiB")
            })
            .collect();
        self.encoded[format as usize] += changed;
        // A copy of the right size: what waits in outboxes is counted by its length.
        let bytes = Bytes::copy_from_slice(&self.frames);
        (changed > 0).then_some(Frames {
            first_seq: segment.from(0),
            bytes,
            ends,
            published: segment.published(0),
        })
    }

    /// Appends what `frame` is in `format`; says whether that is something else.
    fn write(&mut self, format: Format, frame: &[u8]) -> bool {
        let parsed = FrameHeader::parse(frame, Role::Client);
        let (_, header_bytes) = parsed.ok().flatten().expect("segments hold our frames");
        let (object, out) = (&frame[header_bytes..], &mut self.frames);
        let deflater = &mut self.deflater;
        let is_other = match format {
            Format::Json => false,
            Format::JsonDeflate => deflater.write_frame(out, Opcode::Text, object, Reach::Wide),
            Format::JsonDeflateNarrow => {
                deflater.write_frame(out, Opcode::Text, object, Reach::Narrow)
            }
            Format::Msgpack | Format::Raw => {
                format.dialect().write_message(out, object);
                true
            }
        };
        if !is_other {
            out.extend_from_slice(frame);
        }
        is_other
    }
}
