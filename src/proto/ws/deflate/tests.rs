use flate2::{Compress, Compression, FlushCompress};

use super::fuzz::check_compressed;
use super::reference::read;
use super::*;
use crate::limits::COMPRESSED_PAYLOAD_BYTES_MIN;
use crate::limits::FINAL_BLOCKS_PER_MESSAGE_MAX;
use crate::proto::ws::Violation;
use crate::proto::ws::frame::Opcode;

const MAX: usize = 1 << 20;

fn inflated(window: &[u8], compressed: &[u8]) -> Result<Vec<u8>, Violation> {
    Inflater::default().inflate(window, compressed, MAX).map(|message| message.to_vec())
}

/// A client that compresses, with or without context takeover.
struct Client(Compress);

impl Client {
    fn new(window_bits: u8) -> Self {
        Self(Compress::new_with_window_bits(Compression::new(6), false, window_bits))
    }

    fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + message.len() / 8 + 64);
        self.0.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.len() < out.capacity());
        // zlib flushes nothing twice: an empty message behind an empty message is no bytes at all.
        out.truncate(out.len().saturating_sub(FLUSHED.len()));
        out
    }
}

/// Something like JSON that repeats itself, near and far.
fn prose(random: &mut fastrand::Rng, bytes: usize) -> Vec<u8> {
    let words: Vec<String> = (0..40).map(|_| format!("\"{:x}\":", random.u64(..))).collect();
    let mut prose = Vec::new();
    while prose.len() < bytes {
        prose.extend_from_slice(words[random.usize(..words.len())].as_bytes());
        prose.extend_from_slice(random.u16(..).to_string().as_bytes());
    }
    prose.truncate(bytes);
    prose
}

#[test]
fn the_examples_of_the_rfc_say_hello() {
    // RFC 7692 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5.
    for compressed in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflated(b"", compressed), Ok(b"Hello".to_vec()), "{compressed:x?}");
        assert_eq!(read(b"", compressed).unwrap().message, b"Hello");
    }
    // RFC 7692 7.2.3.2: the second one refers back to the first.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflated(b"Hello", &again), Ok(b"Hello".to_vec()));
    assert_eq!(inflated(b"", &again), Err(Violation::DeflateBroken));
    // RFC 7692 7.2.3.6: an empty message.
    assert_eq!(inflated(b"", &[0x00]), Ok(Vec::new()));
    // zlib's users send nothing at all for a second one.
    assert_eq!(inflated(b"", &[]), Ok(Vec::new()));
}

#[test]
fn a_message_that_does_not_end_where_a_block_ends_is_refused() {
    let mut random = fastrand::Rng::with_seed(1);
    let message = prose(&mut random, 3_000);
    let compressed = Client::new(15).compress(&message);
    assert_eq!(inflated(b"", &compressed), Ok(message));
    let mut refused = 0;
    for cut in 1..compressed.len() {
        let ours = inflated(b"", &compressed[..cut]);
        match read(b"", &compressed[..cut]) {
            Ok(plain) => assert_eq!(ours, Ok(plain.message), "{cut}"),
            Err(_) => {
                assert_eq!(ours, Err(Violation::DeflateBroken), "{cut}");
                refused += 1;
            }
        }
    }
    assert!(refused > compressed.len() * 9 / 10, "{refused} of {}", compressed.len());
    let longer = [compressed.as_slice(), &[0x12]].concat();
    assert_eq!(inflated(b"", &longer), Err(Violation::DeflateBroken));
}

#[test]
fn a_bomb_costs_no_more_than_the_longest_message() {
    let bomb = Client::new(15).compress(&vec![b' '; 16 << 20]);
    assert!(bomb.len() < 20_000);
    for max in [1, 1_000, 5_000, 64 * 1024] {
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(b"", &bomb, max), Err(Violation::MessageTooBig));
        assert!(inflater.message.capacity() <= max + 1, "{} bytes", inflater.message.capacity());
        // The next message has no memory of it.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(
            inflater.inflate(b"", &hello, 5).map(|message| message.to_vec()),
            Ok(b"Hello".to_vec())
        );
    }
}

#[test]
fn the_bound_is_kept_to_the_byte() {
    for bytes in [1, 4_095, 4_096, 4_097, 8_193, 100_000] {
        let message = vec![7; bytes];
        let compressed = Client::new(15).compress(&message);
        let mut inflater = Inflater::default();
        let said = inflater.inflate(b"", &compressed, bytes).map(|message| message.to_vec());
        assert_eq!(said, Ok(message));
        assert_eq!(inflater.inflate(b"", &compressed, bytes - 1), Err(Violation::MessageTooBig));
    }
}

#[test]
fn what_was_large_is_not_kept_for_the_next_message() {
    let mut inflater = Inflater::default();
    let compressed = Client::new(15).compress(&vec![7; MAX]);
    assert_eq!(inflater.inflate(b"", &compressed, MAX).map(|message| message.len()), Ok(MAX));
    inflater.inflate(b"", &[0], MAX).unwrap();
    assert!(inflater.message.capacity() <= KEPT_BYTES_MAX);
}

#[test]
fn final_blocks_are_read_on_behind_but_not_without_end() {
    // "Hello" in a final block (RFC 7692 7.2.3.4), several times, then the empty one.
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let most = FINAL_BLOCKS_PER_MESSAGE_MAX as usize;
    let compressed = [hello.repeat(most).as_slice(), &[0]].concat();
    assert_eq!(inflated(b"", &compressed), Ok(b"Hello".repeat(most)));
    let compressed = [hello.repeat(most + 1).as_slice(), &[0]].concat();
    assert_eq!(inflated(b"", &compressed), Err(Violation::DeflateBroken));
    // Behind one, a block still refers back to what came before it, and to the window.
    let again = [hello.as_slice(), &[0xf2, 0x00, 0x11, 0x00, 0x00]].concat();
    assert_eq!(inflated(b"", &again), Ok(b"HelloHello".to_vec()));
}

#[test]
fn messages_refer_back_as_far_as_was_agreed_on() {
    for window_bits in 9..=15 {
        let mut random = fastrand::Rng::with_seed(u64::from(window_bits));
        let mut client = Client::new(window_bits);
        let mut window = Window::new(1 << window_bits);
        let mut inflater = Inflater::default();
        let mut referred = 0;
        for _ in 0..60 {
            let magnitude = random.usize(1..14);
            let bytes = random.usize(..1 << magnitude);
            // Of one vocabulary, so that there is something to refer to.
            let message = prose(&mut fastrand::Rng::with_seed(random.u64(..3)), bytes);
            let compressed = client.compress(&message);
            let said = inflater.inflate(window.as_bytes(), &compressed, MAX);
            assert_eq!(said.map(|said| said.to_vec()), Ok(message.clone()));
            referred += usize::from(inflated(b"", &compressed).is_err());
            window.push(&message);
            assert!(window.as_bytes().len() <= 1 << window_bits);
            assert!(window.held_bytes() <= (1 << window_bits) + size_of::<Window>());
            assert!(message.ends_with(window.as_bytes()) || window.as_bytes().ends_with(&message));
        }
        assert!(referred > 10, "{referred} messages refer to earlier ones");
    }
}

#[test]
fn a_window_takes_no_more_than_was_said() {
    let mut window = Window::new(32 * 1024);
    for count in 1..=10 {
        window.push(b"ten bytes.");
        assert!(window.held_bytes() <= size_of::<Window>() + 2 * 10 * count);
    }
    assert_eq!(window.as_bytes(), b"ten bytes.".repeat(10));
}

#[test]
fn what_is_compressed_says_the_same_and_refers_back_no_further_than_allowed() {
    let mut random = fastrand::Rng::with_seed(7);
    for level in 1..=9 {
        let mut deflater = Deflater::new(level);
        for bytes in [127, 128, 129, 300, 4_000, 5_000, 20_000] {
            let message = prose(&mut random, bytes);
            for reach in Reach::ALL {
                check_compressed(&mut deflater, &message, reach);
            }
        }
        let mut frame = Vec::new();
        assert!(deflater.write_frame(&mut frame, Opcode::Text, &[b'x'; 1_000], Reach::Wide));
        assert!(frame.len() < 30, "{} bytes", frame.len());
    }
}

#[test]
fn a_message_does_not_depend_on_the_ones_before_it() {
    let mut random = fastrand::Rng::with_seed(9);
    let messages: Vec<Vec<u8>> = (0..20).map(|_| prose(&mut random, 2_000)).collect();
    let compressed = |deflater: &mut Deflater, message: &[u8]| {
        let mut frame = Vec::new();
        assert!(deflater.write_frame(&mut frame, Opcode::Text, message, Reach::Wide));
        frame
    };
    let mut deflater = Deflater::new(6);
    for message in &messages {
        let frame = compressed(&mut deflater, message);
        assert_eq!(frame, compressed(&mut Deflater::new(6), message));
    }
}

#[test]
fn what_would_not_become_shorter_is_left_alone() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut deflater = Deflater::new(6);
    let mut frame = b"before".to_vec();
    for bytes in [0, 1, COMPRESSED_PAYLOAD_BYTES_MIN - 1] {
        assert!(!deflater.write_frame(&mut frame, Opcode::Text, &vec![b' '; bytes], Reach::Wide));
    }
    for bytes in [128, 1_000, 70_000] {
        let noise: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
        assert!(!deflater.write_frame(&mut frame, Opcode::Binary, &noise, Reach::Narrow));
    }
    assert_eq!(frame, b"before");
    assert!(deflater.write_frame(&mut frame, Opcode::Text, &[b' '; 200], Reach::Wide));
    assert!(frame.starts_with(b"before\xc1"));
}

#[test]
fn a_promise_is_within_what_was_allowed() {
    for (allowed, reach, promised) in [
        (8, Reach::Narrow, 8),
        (9, Reach::Narrow, 9),
        (11, Reach::Narrow, 9),
        (12, Reach::Wide, 12),
        (13, Reach::Wide, 12),
        (15, Reach::Wide, 12),
    ] {
        assert_eq!((Reach::within(allowed), Reach::promised_bits(allowed)), (reach, promised));
    }
}
