//! What a peer can say: frames and requests, right ones and wrong ones, written down here a second
//! time. What compresses is the library that the server has, too.

use flate2::{Compress, Compression, FlushCompress};

/// A masked frame, as every client sends them.
pub fn frame(random: &mut fastrand::Rng, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ ..126 => out.push(0x80 | length as u8),
        length @ ..65_536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let key = random.u32(..).to_be_bytes();
    out.extend(key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The bit of a compressed message (RFC 7692 6).
const COMPRESSED: u8 = 0x40;

/// A text, sometimes in fragments, and sometimes compressed where that was agreed on.
pub fn text(random: &mut fastrand::Rng, text: &str, deflate: Option<&mut Deflate>) -> Vec<u8> {
    let bytes = text.as_bytes();
    match deflate {
        Some(deflate) if random.bool() => message(random, COMPRESSED, &deflate.compress(bytes)),
        _ => message(random, 0, bytes),
    }
}

fn message(random: &mut fastrand::Rng, compressed: u8, bytes: &[u8]) -> Vec<u8> {
    if random.u8(..10) > 0 || bytes.is_empty() {
        return frame(random, TEXT | compressed, bytes);
    }
    let (at, second) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
    let (first, second) = (at.min(second), at.max(second));
    let mut out = frame(random, 0x01 | compressed, &bytes[..first]);
    out.extend(frame(random, 0x00, &bytes[first..second]));
    out.extend(frame(random, 0x80, &bytes[second..]));
    out
}

pub fn close(random: &mut fastrand::Rng, code: u16) -> Vec<u8> {
    frame(random, CLOSE, &code.to_be_bytes())
}

/// How a peer compresses, as was agreed on.
#[derive(Debug)]
pub struct Deflate {
    state: Compress,
    refers_back: bool,
}

impl Deflate {
    /// As the server's answer says.
    pub fn agreed(answer: &str) -> Self {
        assert!(answer.contains("; server_no_context_takeover"), "{answer}");
        let bits = answer.split("client_max_window_bits=").nth(1);
        let bits = bits.map_or(15, |bits| bits.parse().expect("a number that stands last"));
        Self {
            state: Compress::new_with_window_bits(Compression::new(6), false, bits),
            refers_back: !answer.contains("client_no_context_takeover"),
        }
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.refers_back {
            self.state.reset();
        }
        let mut out = Vec::with_capacity(message.len() + message.len() / 8 + 64);
        self.state.compress_vec(message, &mut out, FlushCompress::Sync).expect("it compresses");
        out.truncate(out.len() - 4);
        out
    }
}

/// The request that becomes a WebSocket; some say who they are.
pub fn upgrade(random: &mut fastrand::Rng, user: Option<&str>) -> Vec<u8> {
    let offer = match random.u8(..6) {
        0 => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        1 => {
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9; \
             server_max_window_bits=9\r\n"
        }
        2 => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        _ => "",
    };
    let protocol = if random.bool() { "Sec-WebSocket-Protocol: ringcast.json.v1\r\n" } else { "" };
    let query = user.map_or_else(String::new, |user| format!("?user={user}"));
    format!(
        "GET /ws{query} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{protocol}{offer}\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// A request to publish these lines.
pub fn publish(random: &mut fastrand::Rng, lines: &[String]) -> Vec<u8> {
    let head = "POST /publish HTTP/1.1\r\nHost: sim\r\nContent-Type: application/x-ndjson\r\n";
    let body = lines.join(if random.bool() { "\n" } else { "\r\n\n" });
    if random.bool() {
        return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let mut out = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk_bytes = random.usize(1..1_000);
    for chunk in body.as_bytes().chunks(chunk_bytes) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Something that breaks a rule, and the codes with which it may be answered.
pub fn insult(
    random: &mut fastrand::Rng,
    message_bytes_max: usize,
    deflate: Option<&mut Deflate>,
) -> (Vec<u8>, &'static [u16]) {
    if let Some(deflate) = deflate
        && random.u8(..3) == 0
    {
        return match random.u8(..4) {
            // A bomb.
            0 => {
                let bytes =
                    deflate.compress(&vec![b' '; message_bytes_max + random.usize(1..9_999)]);
                (message(random, COMPRESSED, &bytes), &[1009])
            }
            1 => {
                let bytes = deflate.compress(b"\"\xff\"");
                (message(random, COMPRESSED, &bytes), &[1007])
            }
            // A block of a kind that there is not.
            2 => (message(random, COMPRESSED, &[0x07, 0xff]), &[1007]),
            _ => (frame(random, 0xc9, b"not on a ping"), &[1002]),
        };
    }
    match random.u8(..14) {
        0 => (frame(random, 0x82, b"binary"), &[1003]),
        1 => (frame(random, TEXT, b"{\"type\":"), &[4400]),
        2 => (frame(random, TEXT, b"[1,2]"), &[4400]),
        3 => (frame(random, TEXT, b"\"\xff\""), &[1007]),
        4 => (frame(random, 0x01, b"\xed\xa0\x80"), &[1007]),
        5 => (frame(random, 0xa1, b"reserved"), &[1002]),
        6 => (vec![TEXT, 2, b'h', b'i'], &[1002]),
        7 => (frame(random, 0x83, b"kind"), &[1002]),
        8 => (frame(random, PING, &[0; 126]), &[1002]),
        9 => (frame(random, 0x09, b"part"), &[1002]),
        10 => {
            // More is claimed than may be, and nothing of it is sent.
            let whole = frame(random, TEXT, &vec![b' '; message_bytes_max + 1]);
            (whole[..8].to_vec(), &[1009])
        }
        11 => (vec![TEXT, 0x80 | 126, 0, 5, 0, 0, 0, 0], &[1002]),
        12 => (frame(random, 0x80, b"continues nothing"), &[1002]),
        _ => (frame(random, CLOSE, &1005_u16.to_be_bytes()), &[1002]),
    }
}

/// The beginning of a message that will not be finished.
pub fn lie(random: &mut fastrand::Rng, message_bytes_max: usize) -> Vec<u8> {
    let whole = frame(random, TEXT, &vec![b' '; random.clone().usize(1..=message_bytes_max)]);
    let told = random.usize(1..whole.len());
    whole[..told].to_vec()
}

/// A request that is answered with an error of this code.
pub fn nonsense(random: &mut fastrand::Rng, id: u64) -> (String, &'static str) {
    match random.u8(..3) {
        0 => (format!(r#"{{"type":"dance","id":{id}}}"#), "unknown_type"),
        1 => (format!(r#"{{"id":{id},"type":"subscribe"}}"#), "missing_field"),
        _ => (format!(r#"{{"type":"publish","id":{id},"channel":"","payload":1}}"#), "bad_channel"),
    }
}
