//! Frames as fast as the generator needs them: it walks the headers of what a server sends and
//! looks at no payload unless asked. It is no judge of the protocol; the tests are.

/// Opcodes (RFC 6455 5.2).
pub(crate) const TEXT: u8 = 1;
const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The bit of a compressed message (RFC 7692 6).
const COMPRESSED: u8 = 0x40;

/// The masking key of every frame sent here. A fixed key costs a server as much as a random one.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A whole frame from a server.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    opcode: u8,
    /// Whether it is a compressed message: what is in it is not looked at.
    pub(crate) is_compressed: bool,
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// Whether this is a message of a channel: `{"type":"message"` and nothing else that a
    /// server sends has an `m` there. Nothing but messages comes compressed.
    #[inline]
    pub(crate) fn is_message(&self) -> bool {
        self.opcode == TEXT && (self.is_compressed || self.payload.get(9) == Some(&b'm'))
    }

    /// Whether the envelope's type starts with `name`.
    pub(crate) fn is_type(&self, name: &[u8]) -> bool {
        self.opcode == TEXT
            && !self.is_compressed
            && self.payload.get(9..).is_some_and(|rest| rest.starts_with(name))
    }

    pub(crate) fn is_ping(&self) -> bool {
        self.opcode == PING
    }

    /// The text, for messages to people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload[..self.payload.len().min(300)]).into_owned()
    }

    /// The first number after `name` in the payload.
    pub(crate) fn number(&self, name: &[u8]) -> Option<u64> {
        let at = memchr::memmem::find(self.payload, name)? + name.len();
        let digits = self.payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
        let mut value = None;
        for digit in digits {
            value = Some(value.unwrap_or(0_u64).wrapping_mul(10) + u64::from(digit - b'0'));
        }
        value
    }
}

/// The whole frames at the start of received bytes.
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes after the last whole frame.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    #[inline]
    fn next(&mut self) -> Option<Frame<'a>> {
        let bytes = self.rest();
        let (header_bytes, payload_bytes): (usize, usize) = match *bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            // A masked frame from a server would have the top bit set and look endless here.
            short => (2, usize::from(short)),
        };
        let payload = bytes.get(header_bytes..header_bytes.checked_add(payload_bytes)?)?;
        self.at += header_bytes + payload_bytes;
        let is_compressed = bytes[0] & COMPRESSED != 0;
        Some(Frame { opcode: bytes[0] & 0x0f, is_compressed, payload })
    }
}

/// Appends one masked frame (RFC 6455 5.2, 5.3).
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else if let Ok(bytes) = u16::try_from(payload.len()) {
        out.push(0x80 | 126);
        out.extend_from_slice(&bytes.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&KEY);
    let start = out.len();
    out.extend_from_slice(payload);
    for (index, byte) in out[start..].iter_mut().enumerate() {
        *byte ^= KEY[index & 3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unmasked frames of every length form, as a server sends them.
    fn stream() -> Vec<u8> {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c', 0x89, 0];
        bytes.extend_from_slice(&[0x82, 126, 1, 44]);
        bytes.extend_from_slice(&[b'm'; 300]);
        bytes.extend_from_slice(&[0x81, 127, 0, 0, 0, 0, 0, 1, 17, 112]);
        bytes.extend_from_slice(&[b'l'; 70_000]);
        bytes
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut() {
        let bytes = stream();
        let whole: Vec<usize> = Frames::new(&bytes).map(|frame| frame.payload.len()).collect();
        assert_eq!(whole, [3, 0, 300, 70_000]);
        for cut in (0..400).chain([1_000, bytes.len() - 1, bytes.len()]) {
            let mut first = Frames::new(&bytes[..cut]);
            let mut lengths: Vec<usize> = first.by_ref().map(|f| f.payload.len()).collect();
            let rest = [first.rest(), &bytes[cut..]].concat();
            lengths.extend(Frames::new(&rest).map(|frame| frame.payload.len()));
            assert_eq!(lengths, whole, "cut at {cut}");
        }
    }

    #[test]
    fn masked_frame_is_the_payload_under_the_key() {
        let mut out = Vec::new();
        write_masked(&mut out, TEXT, b"hello");
        assert_eq!(out[..2], [0x81, 0x85]);
        let plain: Vec<u8> = out[6..].iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, b"hello");
    }

    #[test]
    fn gap_range_is_read_from_its_text() {
        let text = br#"{"type":"gap","channel":"c","from":125,"to":131,"reason":"slow_consumer"}"#;
        let frame = Frame { opcode: TEXT, is_compressed: false, payload: text };
        assert!(frame.is_type(b"gap") && !frame.is_message());
        assert_eq!(frame.number(b"\"from\":"), Some(125));
        assert_eq!(frame.number(b"\"to\":"), Some(131));
    }
}
