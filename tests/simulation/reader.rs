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
    /// An event of a stream.
    Event {
        id: String,
        text: String,
    },
    /// The answer to a poll.
    Answer {
        cursors: String,
        events: Vec<String>,
    },
    Text {
        text: String,
        compressed: bool,
        /// When the server's kernel had its first byte.
        left_at: u64,
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

/// What follows the head of an answer that is no WebSocket.
#[derive(Debug, Default)]
enum Body {
    /// A page, or a refusal, up to the end.
    #[default]
    Page,
    /// Chunks, a line in each.
    Chunks,
    /// Events.
    Events,
    /// So many bytes that answer a poll, and where it goes on.
    Answer(usize, String),
    /// It has been read.
    Over,
}

/// Reads one connection.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: VecDeque<u8>,
    /// Where in the stream `bytes` begins.
    at: u64,
    status: Option<u16>,
    body: Body,
    /// What was agreed on about compression, as the server said it.
    pub agreement: Option<String>,
    closed: bool,
    /// Where sends ended before their end.
    cuts: Vec<u64>,
    /// Where sends ended, and when they were made.
    sends: VecDeque<(u64, u64)>,
}

impl Reader {
    /// Bytes arrived; `cuts` are the ends of sends that were not whole, `sends` those of all with their
    /// times.
    pub fn feed(&mut self, bytes: &[u8], cuts: Vec<u64>, sends: Vec<(u64, u64)>) {
        self.bytes.extend(bytes);
        self.cuts.extend(cuts);
        self.sends.extend(sends);
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
            Some(_) => match &self.body {
                Body::Chunks => self.chunk(),
                Body::Events => self.event(),
                Body::Answer(..) => self.poll_answer(),
                Body::Page => {
                    self.take(self.bytes.len());
                    None
                }
                Body::Over => {
                    assert!(self.bytes.is_empty(), "something follows the answer");
                    None
                }
            },
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
        let field = |name: &str| {
            let named = |line: &str| line.strip_prefix(name).map(str::to_owned);
            text.lines().find_map(named)
        };
        let agreement = field("Sec-WebSocket-Extensions: ");
        let body = match field("Ringcast-Cursor: ") {
            Some(cursors) => {
                let bytes = field("Content-Length: ").map_or(0, |it| it.parse().expect("a number"));
                assert_eq!(bytes == 0, status == 204, "{text}");
                Body::Answer(bytes, cursors)
            }
            None if field("Transfer-Encoding: ").is_some() => Body::Chunks,
            None if field("Content-Type: ").as_deref() == Some("text/event-stream") => Body::Events,
            None => Body::Page,
        };
        if let Some(cut) = self.cut_within(end, end) {
            return Some(Read::Cut(cut));
        }
        (self.status, self.body, self.agreement) = (Some(status), body, agreement);
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

    /// The next event; comments and what concerns only browsers are passed over.
    fn event(&mut self) -> Option<Read> {
        loop {
            let bytes = self.bytes.make_contiguous();
            let total = bytes.windows(2).position(|two| two == b"\n\n")? + 2;
            if let Some(cut) = self.cut_within(total, total) {
                return Some(Read::Cut(cut));
            }
            let block = String::from_utf8(self.take(total)).expect("UTF-8");
            if block == ":\n\n" || block.starts_with("retry: ") {
                continue;
            }
            let (id, data) = block.split_once('\n').expect("two lines");
            let id = id.strip_prefix("id: ").unwrap_or_else(|| panic!("no id: {block}"));
            let text = data.strip_prefix("data: ").and_then(|it| it.strip_suffix("\n\n"));
            let text = text.unwrap_or_else(|| panic!("no data: {block}"));
            return Some(Read::Event { id: id.to_owned(), text: text.to_owned() });
        }
    }

    fn poll_answer(&mut self) -> Option<Read> {
        let Body::Answer(bytes, _) = &self.body else { unreachable!("looked at just now") };
        let bytes = *bytes;
        if self.bytes.len() < bytes {
            return None;
        }
        if let Some(cut) = self.cut_within(bytes, bytes) {
            return Some(Read::Cut(cut));
        }
        let text = String::from_utf8(self.take(bytes)).expect("UTF-8");
        let Body::Answer(_, cursors) = std::mem::replace(&mut self.body, Body::Over) else {
            unreachable!("looked at just now")
        };
        if text.is_empty() {
            return Some(Read::Answer { cursors, events: Vec::new() });
        }
        let front = format!("{{\"cursor\":\"{cursors}\",\"events\":[");
        let events = text.strip_prefix(&front).and_then(|rest| rest.strip_suffix("]}\n"));
        let events = events.unwrap_or_else(|| panic!("no answer to a poll: {text}"));
        // Nothing that is published here looks like the beginning of another object.
        let events = events.replace(",{\"type\":", "\n{\"type\":");
        Some(Read::Answer { cursors, events: events.lines().map(str::to_owned).collect() })
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
        let start = self.at;
        while self.sends.front().is_some_and(|(end, _)| *end <= start) {
            self.sends.pop_front();
        }
        let left_at = self.sends.front().expect("what has come was sent").1;
        let frame = self.take(total);
        let payload = frame[header..].to_vec();
        let is_control = first & 0x08 != 0;
        assert!(!is_control || payload.len() <= 125, "a control frame is short");
        assert!(!is_control || !compressed, "a control frame is not compressed");
        Some(match first & 0x0f {
            1 => {
                let payload = if compressed { inflate(&payload) } else { payload };
                let text = String::from_utf8(payload).expect("a text is UTF-8");
                Read::Text { text, compressed, left_at }
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
