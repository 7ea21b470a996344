//! Any bytes as a compressed message: what zlib-rs makes of them, the plain reading of the RFC does.

use super::reference::{Broken, read};
use super::{Deflater, Inflater, Reach, Window};
use crate::fuzz::Choices;
use crate::proto::ws::Violation;
use crate::proto::ws::frame::{FrameHeader, Opcode, Role};

/// What a message of a few KiB can become at the most is a thousand times as much.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Inflates the input as messages that follow each other, then compresses what they said.
///
/// # Panics
/// When the plain reading says something else, when a bound is not kept, or when what is
/// compressed does not come back as it was.
pub fn deflate(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut window = Window::new(choices.one_of(&[256, 4_096, 32_768]));
    let max = choices.one_of(&[MESSAGE_BYTES_MAX, 100]);
    let mut inflater = Inflater::default();
    let mut deflater = Deflater::new(choices.one_of(&[2, 1, 6, 9]));
    for _ in 0..4 {
        let bytes = usize::from(choices.word() % 2_048);
        let compressed = choices.bytes(bytes);
        let Some(message) = inflate(&mut inflater, &window, compressed, max) else { break };
        window.push(&message);
        assert!(window.held_bytes() <= size_of::<Window>() + 32_768);
        for reach in Reach::ALL {
            check_compressed(&mut deflater, &message, reach);
        }
    }
    let rest = choices.remaining();
    for reach in Reach::ALL {
        check_compressed(&mut deflater, rest, reach);
        check_compressed(&mut deflater, &rest.repeat(9), reach);
    }
}

/// The message that `compressed` is, if both readings agree that it is one.
fn inflate(
    inflater: &mut Inflater,
    window: &Window,
    compressed: &[u8],
    max: usize,
) -> Option<Vec<u8>> {
    let ours = inflater.inflate(window.as_bytes(), compressed, max).map(|message| message.to_vec());
    let plain = read(window.as_bytes(), compressed);
    match (&ours, &plain) {
        (Ok(message), Ok(plain)) => assert_eq!(*message, plain.message),
        (Err(Violation::DeflateBroken), Err(Broken)) => {}
        (Err(Violation::MessageTooBig), Ok(plain)) => assert!(plain.message.len() > max),
        // It became too long before it broke.
        (Err(Violation::MessageTooBig), Err(Broken)) => {}
        _ => panic!("{ours:x?}, but {plain:x?}"),
    }
    assert!(inflater.message.capacity() <= max.max(super::KEPT_BYTES_MAX) + 1);
    ours.ok()
}

/// What is compressed is shorter, says the same, and refers back no further than was promised.
pub(super) fn check_compressed(deflater: &mut Deflater, message: &[u8], reach: Reach) {
    let mut frame = Vec::new();
    if !deflater.write_frame(&mut frame, Opcode::Text, message, reach) {
        assert!(frame.is_empty());
        return;
    }
    let parsed = FrameHeader::parse_extended(&frame, Role::Client, true);
    let (header, header_bytes) = parsed.expect("a sound header").expect("a whole header");
    assert!(header.compressed && header.fin);
    let payload = &frame[header_bytes..];
    assert_eq!(header.payload_bytes, payload.len() as u64);
    assert!(payload.len() < message.len());
    let plain = read(&[], payload).expect("a message");
    assert_eq!(plain.message, message);
    let allowed = match reach {
        Reach::Wide => 4_096,
        Reach::Narrow => 256,
    };
    assert!(plain.distance_max <= allowed, "{reach:?} refers back {} bytes", plain.distance_max);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_mean_what_a_plain_reading_makes_of_them() {
        crate::fuzz::replay("deflate", super::deflate);
    }
}
