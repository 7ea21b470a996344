//! The frame on the wire: its header, read and written, and frames written whole.
//!
//! ```text
//!   0               1               2 .. 3 or 2 .. 9        then 4
//!  +-+-+-+-+-------+-+-------------+-----------------------+-----------+---------
//!  |F|R|R|R| opcode|M| length 7    | length 16 (if 126)    | mask key  | payload
//!  |I|S|S|S|       |A| 0..=125     | or 64 (if 127)        | (if MASK) |
//!  |N|1|2|3|       |S| 126, 127    | big endian            |           |
//!  +-+-+-+-+-------+-+-------------+-----------------------+-----------+---------
//! ```
//!
//! What a sequence of frames means is the decoder's business.

use super::violation::Violation;
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;
use crate::simd;

/// Bytes of the longest header: two, a 64-bit length, a mask key.
pub const HEADER_BYTES_MAX: usize = 14;

/// Bytes of the longest header a server writes: no mask key.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const COMPRESSED: u8 = 0x40;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// Which end of the connection we are, which decides who masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We are the server: every frame we receive is masked.
    Server,
    /// We are the client: no frame we receive is masked.
    Client,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of the message that was begun.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// The goodbye.
    Close = 8,
    /// Asks for a pong with the same payload.
    Ping = 9,
    /// Answers a ping, or comes unasked.
    Pong = 10,
}

impl Opcode {
    /// Whether frames of this kind may stand between the fragments of a message.
    #[must_use]
    pub fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }

    fn from_nibble(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether this frame is the last of its message.
    pub fin: bool,
    /// Whether this frame begins a compressed message (RFC 7692 6: RSV1).
    pub compressed: bool,
    /// What the frame is for.
    pub opcode: Opcode,
    /// The key its payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload the header claims.
    pub payload_bytes: u64,
}

impl FrameHeader {
    /// Reads a header from the front of `bytes`: the header and its own length, or `None` while
    /// it is incomplete. Every rule is checked at the first byte that breaks it, so the verdict
    /// does not depend on how the bytes were cut. No extension is in use.
    ///
    /// # Errors
    /// The rules of RFC 6455 5.1, 5.2 and 5.5 that one header alone can break.
    #[inline]
    pub fn parse(bytes: &[u8], role: Role) -> Result<Option<(Self, usize)>, Violation> {
        Self::parse_extended(bytes, role, false)
    }

    /// The same where messages may come compressed, if `may_compress`.
    ///
    /// # Errors
    /// The same, and RFC 7692 6.1.
    #[inline]
    pub fn parse_extended(
        bytes: &[u8],
        role: Role,
        may_compress: bool,
    ) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        // RFC 6455 5.2: reserved bits are zero unless an extension gave them a meaning.
        if first & RESERVED != 0 && (first & RESERVED != COMPRESSED || !may_compress) {
            return Err(Violation::ReservedBitSet);
        }
        let compressed = first & COMPRESSED != 0;
        let Some(opcode) = Opcode::from_nibble(first & 0x0f) else {
            return Err(Violation::OpcodeReserved);
        };
        // RFC 7692 6.1: the bit stands on the first frame of a data message and nowhere else.
        if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(Violation::CompressedBitMisplaced);
        }
        let fin = first & FIN != 0;
        // RFC 6455 5.5: control frames carry at most 125 bytes and are never fragmented.
        if opcode.is_control() && !fin {
            return Err(Violation::ControlFrameFragmented);
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        // RFC 6455 5.1: a client masks every frame, a server none.
        match role {
            Role::Server if second & MASKED == 0 => return Err(Violation::FrameNotMasked),
            Role::Client if second & MASKED != 0 => return Err(Violation::FrameMasked),
            _ => {}
        }
        let length = second & !MASKED;
        if opcode.is_control() && usize::from(length) > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(Violation::ControlFrameTooLong);
        }

        let (payload_bytes, header_bytes) = match length {
            LENGTH_16 => {
                let Some(field) = bytes.get(2..4) else { return Ok(None) };
                let value = u16::from_be_bytes([field[0], field[1]]);
                // RFC 6455 5.2: the minimal number of bytes must be used.
                if value < u16::from(LENGTH_16) {
                    return Err(Violation::LengthNotMinimal);
                }
                (u64::from(value), 4)
            }
            LENGTH_64 => {
                let Some(&top) = bytes.get(2) else { return Ok(None) };
                // RFC 6455 5.2: the most significant bit must be 0.
                if top & 0x80 != 0 {
                    return Err(Violation::LengthTopBitSet);
                }
                let Some(field) = bytes.get(2..10) else { return Ok(None) };
                let field: [u8; 8] = field.try_into().expect("eight bytes were asked for");
                let value = u64::from_be_bytes(field);
                if value <= u64::from(u16::MAX) {
                    return Err(Violation::LengthNotMinimal);
                }
                (value, 10)
            }
            length => (u64::from(length), 2),
        };

        if role == Role::Client {
            let header = Self { fin, compressed, opcode, mask: None, payload_bytes };
            return Ok(Some((header, header_bytes)));
        }
        let Some(key) = bytes.get(header_bytes..header_bytes + 4) else { return Ok(None) };
        let mask = Some([key[0], key[1], key[2], key[3]]);
        let header = Self { fin, compressed, opcode, mask, payload_bytes };
        Ok(Some((header, header_bytes + 4)))
    }

    /// Appends the header, in its shortest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        let compressed = if self.compressed { COMPRESSED } else { 0 };
        out.push(if self.fin { FIN } else { 0 } | compressed | self.opcode as u8);
        let bytes = self.payload_bytes;
        if bytes < u64::from(LENGTH_16) {
            out.push(masked | bytes as u8);
        } else if let Ok(short) = u16::try_from(bytes) {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&short.to_be_bytes());
        } else {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&bytes.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Bytes of the unmasked header in front of `payload_bytes`.
#[must_use]
pub fn header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => SERVER_HEADER_BYTES_MAX,
    }
}

/// Appends the unmasked header of a whole message, for a caller that knows the length and
/// writes the payload itself.
#[inline]
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_bytes: usize) {
    let payload_bytes = payload_bytes as u64;
    FrameHeader { fin: true, compressed: false, opcode, mask: None, payload_bytes }.encode(out);
}

/// Appends an unmasked frame whose payload is a compressed message (RFC 7692 7.2.1).
pub fn write_compressed(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(payload.len() + SERVER_HEADER_BYTES_MAX);
    let payload_bytes = payload.len() as u64;
    FrameHeader { fin: true, compressed: true, opcode, mask: None, payload_bytes }.encode(out);
    out.extend_from_slice(payload);
}

/// Appends an unmasked frame, as a server sends it.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    out.reserve(payload.len() + SERVER_HEADER_BYTES_MAX);
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends an unmasked frame whose payload `write` appends in place. The header is fitted in
/// front afterwards; only a payload above 125 bytes has to move for it.
pub fn write_frame_with(out: &mut Vec<u8>, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    write(out);
    let payload_bytes = out.len() - start - 2;
    let header_bytes = header_bytes(payload_bytes);
    if header_bytes > 2 {
        let end = out.len();
        out.resize(end + header_bytes - 2, 0);
        out.copy_within(start + 2..end, start + header_bytes);
    }
    let header = &mut out[start..start + header_bytes];
    header[0] = FIN | opcode as u8;
    match header_bytes {
        2 => header[1] = payload_bytes as u8,
        4 => {
            header[1] = LENGTH_16;
            header[2..].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            header[1] = LENGTH_64;
            header[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

/// Appends a masked frame, as a client sends it.
pub fn write_masked(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    out.reserve(payload.len() + HEADER_BYTES_MAX);
    let payload_bytes = payload.len() as u64;
    FrameHeader { fin: true, compressed: false, opcode, mask: Some(key), payload_bytes }
        .encode(out);
    let start = out.len();
    out.extend_from_slice(payload);
    simd::xor_mask(&mut out[start..], key, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    fn header(payload_bytes: u64, mask: Option<[u8; 4]>) -> FrameHeader {
        FrameHeader { fin: true, compressed: false, opcode: Opcode::Binary, mask, payload_bytes }
    }

    #[test]
    fn a_header_is_read_back_as_it_was_written() {
        for payload_bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 32, u64::MAX >> 1] {
            for (mask, role) in [(None, Role::Client), (Some(KEY), Role::Server)] {
                for (fin, compressed, opcode) in [
                    (true, false, Opcode::Text),
                    (true, true, Opcode::Text),
                    (false, true, Opcode::Binary),
                    (false, false, Opcode::Continuation),
                ] {
                    let header = FrameHeader { fin, compressed, opcode, mask, payload_bytes };
                    let mut out = Vec::new();
                    header.encode(&mut out);
                    let parsed = FrameHeader::parse_extended(&out, role, true);
                    assert_eq!(parsed, Ok(Some((header, out.len()))));
                    for cut in 0..out.len() {
                        let parsed = FrameHeader::parse_extended(&out[..cut], role, true);
                        assert_eq!(parsed, Ok(None), "{cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_behind_the_header_do_not_matter() {
        let mut out = Vec::new();
        header(5, Some(KEY)).encode(&mut out);
        out.extend_from_slice(&[0xff; 20]);
        assert_eq!(FrameHeader::parse(&out, Role::Server), Ok(Some((header(5, Some(KEY)), 6))));
    }

    #[test]
    fn a_broken_rule_is_noticed_at_its_byte() {
        for (bytes, violation) in [
            (&[0x92_u8][..], Violation::ReservedBitSet),
            (&[0x83], Violation::OpcodeReserved),
            (&[0x08], Violation::ControlFrameFragmented),
            (&[0x82, 0x00], Violation::FrameNotMasked),
            (&[0x88, 0xfe], Violation::ControlFrameTooLong),
            (&[0x82, 0xff, 0x80], Violation::LengthTopBitSet),
        ] {
            assert_eq!(FrameHeader::parse(bytes, Role::Server), Err(violation));
            let before = &bytes[..bytes.len() - 1];
            assert_eq!(FrameHeader::parse(before, Role::Server), Ok(None), "{bytes:x?}");
        }
    }

    #[test]
    fn the_bit_of_compression_stands_on_the_first_frame_of_a_message_if_it_may() {
        for (first, allowed, otherwise) in [
            (0xc1_u8, Ok(None), Err(Violation::ReservedBitSet)),
            (0x42, Ok(None), Err(Violation::ReservedBitSet)),
            (0xc0, Err(Violation::CompressedBitMisplaced), Err(Violation::ReservedBitSet)),
            (0x40, Err(Violation::CompressedBitMisplaced), Err(Violation::ReservedBitSet)),
            (0xc8, Err(Violation::CompressedBitMisplaced), Err(Violation::ReservedBitSet)),
            (0xc9, Err(Violation::CompressedBitMisplaced), Err(Violation::ReservedBitSet)),
            (0xe1, Err(Violation::ReservedBitSet), Err(Violation::ReservedBitSet)),
            (0xd1, Err(Violation::ReservedBitSet), Err(Violation::ReservedBitSet)),
            (0xa1, Err(Violation::ReservedBitSet), Err(Violation::ReservedBitSet)),
        ] {
            for role in [Role::Client, Role::Server] {
                assert_eq!(FrameHeader::parse_extended(&[first], role, true), allowed, "{first:x}");
                assert_eq!(FrameHeader::parse(&[first], role), otherwise, "{first:x}");
            }
        }
    }

    #[test]
    fn every_way_to_write_a_frame_writes_the_same() {
        for bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let mut plain = b"before".to_vec();
            write_frame(&mut plain, Opcode::Text, &payload);
            let mut in_place = b"before".to_vec();
            write_frame_with(&mut in_place, Opcode::Text, |body| body.extend_from_slice(&payload));
            assert_eq!(plain, in_place, "{bytes}");
            assert_eq!(plain.len(), 6 + header_bytes(bytes) + bytes);

            let mut masked = b"before".to_vec();
            write_masked(&mut masked, Opcode::Text, &payload, KEY);
            let parsed = FrameHeader::parse(&masked[6..], Role::Server);
            let (header, header_bytes) = parsed.unwrap().unwrap();
            assert_eq!(header.payload_bytes, bytes as u64);
            simd::xor_mask(&mut masked[6 + header_bytes..], KEY, 0);
            assert_eq!(masked[6 + header_bytes..], payload);
        }
    }
}
