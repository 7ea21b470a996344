//! What a peer makes of the bytes it is sent: an HTTP answer, then frames, by rules written down
//! here a second time. Nothing of the server's own reading or writing is used.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress};

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The status of the HTTP answer.
    Status(u16),
    /// A line of an answer that comes in chunks.
    Line(String),
    /// Such an answer is complete.
    LastLine,
    Text {
        text: String,
        compressed: bool,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// A send of the server's ended here.
    Cut(Cut),
}

/// What a send that was not whole was cut in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    HttpAnswer,
    FrameHeader,
    Payload,
    BetweenFrames,
}

/// Reads one connection.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: VecDeque<u8>,
    /// Where in the stream `bytes` begins.
    at: u64,
    status: Option<u16>,
    /// The answer comes in chunks, a line in each.
    in_chunks: bool,
    /// What was agreed on about compression, as the server said it.
    pub agreement: Option<String>,
    closed: bool,
    /// Where sends ended before their end.
    cuts: Vec<u64>,
}

impl Reader {
    /// Bytes arrived; `cuts` are the ends of sends that were not whole.
    pub fn feed(&mut self, bytes: &[u8], cuts: Vec<u64>) {
        self.bytes.extend(bytes);
        self.cuts.extend(cuts);
    }

    /// The next thing that is complete.
    ///
    /// # Panics
    /// When the bytes are not what a server may send.
    pub fn next(&mut self) -> Option<Read> {
        if let Some(at) = self.cuts.iter().position(|cut| *cut <= self.at) {
            self.cuts.swap_remove(at);
            return Some(Read::Cut(Cut::BetweenFrames));
        }
        match self.status {
            None => self.answer(),
            Some(101) => self.frame(),
            Some(_) if self.in_chunks => self.chunk(),
            // The body of a page or of a refusal.
            Some(_) => {
                self.take(self.bytes.len());
                None
            }
        }
    }

    /// Whether a frame, or the answer, is incomplete.
    pub fn is_amid(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn answer(&mut self) -> Option<Read> {
        let head = self.bytes.make_contiguous();
        let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&head[..end]).expect("an answer is ASCII");
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no HTTP answer: {text}"));
        let in_chunks = text.contains("\r\nTransfer-Encoding: chunked\r\n");
        let named = |line: &str| line.strip_prefix("Sec-WebSocket-Extensions: ").map(str::to_owned);
        let agreement = text.lines().find_map(named);
        if let Some(cut) = self.cut_within(end, end) {
            return Some(Read::Cut(cut));
        }
        (self.status, self.in_chunks, self.agreement) = (Some(status), in_chunks, agreement);
        self.take(end);
        Some(Read::Status(status))
    }

    fn chunk(&mut self) -> Option<Read> {
        let bytes = self.bytes.make_contiguous();
        let digits = bytes.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..digits]).expect("a chunk's size is ASCII");
        let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
        let total = digits + 2 + size + 2;
        if bytes.len() < total {
            return None;
        }
        assert!(!self.closed, "a chunk after the last one");
        let chunk = self.take(total);
        assert!(chunk.ends_with(b"\r\n"), "a chunk has its size");
        if size == 0 {
            self.closed = true;
            return Some(Read::LastLine);
        }
        let line = String::from_utf8(chunk[digits + 2..total - 2].to_vec()).expect("UTF-8");
        Some(Read::Line(line.strip_suffix('\n').expect("a chunk is a line").to_owned()))
    }

    fn frame(&mut self) -> Option<Read> {
        let (first, second) = (*self.bytes.front()?, *self.bytes.get(1)?);
        assert!(!self.closed, "a frame after the close frame");
        let compressed = first & 0x40 != 0;
        assert_eq!(first & 0xb0, 0x80, "the server neither fragments nor uses reserved bits");
        assert!(!compressed || self.agreement.is_some(), "nobody agreed on compression");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let extended = |reader: &Self, count: usize| -> Option<u64> {
            (reader.bytes.len() >= 2 + count).then(|| {
                reader.bytes.range(2..2 + count).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            })
        };
        let (header, length) = match second {
            126 => (4, extended(self, 2)?),
            127 => (10, extended(self, 8)?),
            short => (2, u64::from(short)),
        };
        let total = header + length as usize;
        if self.bytes.len() < total {
            return None;
        }
        let cut = self.cut_within(header, total);
        if let Some(cut) = cut {
            return Some(Read::Cut(cut));
        }
        let frame = self.take(total);
        let payload = frame[header..].to_vec();
        let is_control = first & 0x08 != 0;
        assert!(!is_control || payload.len() <= 125, "a control frame is short");
        assert!(!is_control || !compressed, "a control frame is not compressed");
        Some(match first & 0x0f {
            1 => {
                let payload = if compressed { inflate(&payload) } else { payload };
                let text = String::from_utf8(payload).expect("a text is UTF-8");
                Read::Text { text, compressed }
            }
            8 => {
                self.closed = true;
                assert_ne!(payload.len(), 1, "a close code has two bytes");
                Read::Close(payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]])))
            }
            9 => Read::Ping(payload),
            10 => Read::Pong(payload),
            other => panic!("a frame of kind {other}"),
        })
    }

    /// What a send was cut in, if one was within the `total` bytes at the front.
    fn cut_within(&mut self, header: usize, total: usize) -> Option<Cut> {
        let (at, end) = (self.at, self.at + total as u64);
        let within = self.cuts.iter().position(|cut| (at + 1..end).contains(cut))?;
        let cut = self.cuts.swap_remove(within);
        Some(match self.status {
            Some(101) if cut < at + header as u64 => Cut::FrameHeader,
            Some(101) => Cut::Payload,
            _ => Cut::HttpAnswer,
        })
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.at += count as u64;
        self.bytes.drain(..count).collect()
    }
}

/// A message that refers to none before it.
fn inflate(payload: &[u8]) -> Vec<u8> {
    let data = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut message = Vec::with_capacity(64 * 1024);
    let mut state = Decompress::new(false);
    state.decompress_vec(&data, &mut message, FlushDecompress::Sync).expect("it is DEFLATE data");
    assert_eq!(state.total_in(), data.len() as u64, "a message is all that there is");
    assert!(payload.len() < message.len(), "what is compressed is shorter");
    message
}
