//! The forms in which messages leave: each client has one, and each message is encoded once for
//! each form that somebody wants.

use bytes::Bytes;

use super::segment::{Frames, Segment};
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
}

impl Format {
    /// All of them, in the order of their values.
    pub const ALL: [Self; 3] = [Self::Json, Self::JsonDeflate, Self::JsonDeflateNarrow];

    /// How many there are beside the one that every segment has.
    pub(super) const VARIANTS: usize = Self::ALL.len() - 1;

    /// The form for a client with whom this was agreed on about compression.
    #[must_use]
    pub const fn json(compression: Option<Reach>) -> Self {
        match compression {
            None => Self::Json,
            Some(Reach::Wide) => Self::JsonDeflate,
            Some(Reach::Narrow) => Self::JsonDeflateNarrow,
        }
    }

    /// Its stable label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonDeflate => "json_deflate",
            Self::JsonDeflateNarrow => "json_deflate_narrow",
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
        let reach = match format {
            Format::Json => return None,
            Format::JsonDeflate => Reach::Wide,
            Format::JsonDeflateNarrow => Reach::Narrow,
        };
        self.frames.clear();
        let mut compressed = 0;
        let ends = (0..segment.messages())
            .map(|index| {
                let frame = segment.bytes(segment.start(index), segment.start(index + 1));
                let parsed = FrameHeader::parse(frame, Role::Client);
                let (_, header_bytes) = parsed.ok().flatten().expect("segments hold our frames");
                let payload = &frame[header_bytes..];
                let out = &mut self.frames;
                if self.deflater.write_frame(out, Opcode::Text, payload, reach) {
                    compressed += 1;
                } else {
                    out.extend_from_slice(frame);
                }
                out.len() as u32
            })
            .collect();
        self.encoded[format as usize] += compressed;
        // A copy of the right size: what waits in outboxes is counted by its length.
        let bytes = Bytes::copy_from_slice(&self.frames);
        (compressed > 0).then_some(Frames { first_seq: segment.seq(0), bytes, ends })
    }
}
