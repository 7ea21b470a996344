use super::*;
use crate::proto::cuts::{Cut, Seeded};
use crate::proto::ws::frame::{write_frame, write_masked};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MAX: usize = 1 << 20;

/// An event with its bytes, to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Compressed(Opcode, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Broke(Violation),
}

impl From<Event<'_>> for Said {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_vec()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Compressed(opcode, payload) => Self::Compressed(opcode, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(close) => {
                Self::Close(close.map(|(code, reason)| (code, reason.to_owned())))
            }
        }
    }
}

fn text(text: &str) -> Said {
    Said::Text(text.as_bytes().to_vec())
}

/// Feeds one piece; whether the decoder goes on.
fn feed(decoder: &mut Decoder, piece: &mut [u8], max: usize, said: &mut Vec<Said>) -> bool {
    let mut input = piece;
    loop {
        match decoder.next(&mut input, max) {
            Ok(Some(event)) => said.push(event.into()),
            Ok(None) => {
                assert!(input.is_empty(), "None means that the input is used up");
                return true;
            }
            Err(violation) => {
                said.push(Said::Broke(violation));
                let again = decoder.next(&mut [].as_mut_slice(), max);
                assert_eq!(again, Err(violation), "a failed decoder stays failed");
                assert_eq!(decoder.held_bytes(), 0);
                return false;
            }
        }
    }
}

fn said_when_cut(stream: &[u8], role: Role, max: usize, cut: Cut) -> Vec<Said> {
    said_by(Decoder::new(role), stream, max, cut)
}

fn said_by(mut decoder: Decoder, stream: &[u8], max: usize, cut: Cut) -> Vec<Said> {
    let mut said = Vec::new();
    for mut piece in cut.pieces(stream) {
        if !feed(&mut decoder, &mut piece, max, &mut said) {
            break;
        }
    }
    said
}

/// What a stream says, and that it says so however it is cut.
fn said_with_max(stream: &[u8], max: usize) -> Vec<Said> {
    let whole = said_when_cut(stream, Role::Server, max, Cut::Whole);
    for cut in Cut::every(40) {
        assert_eq!(said_when_cut(stream, Role::Server, max, cut), whole, "{cut:?}");
    }
    whole
}

fn said(stream: &[u8]) -> Vec<Said> {
    said_with_max(stream, MAX)
}

/// The same of a stream with whose sender compression was agreed on.
fn said_compressed(stream: &[u8], max: usize) -> Vec<Said> {
    let decoder = || Decoder::with_compression(Role::Server);
    let whole = said_by(decoder(), stream, max, Cut::Whole);
    for cut in Cut::every(40) {
        assert_eq!(said_by(decoder(), stream, max, cut), whole, "{cut:?}");
    }
    whole
}

/// One masked frame, with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, Opcode::Binary, payload, KEY);
    out[0] = first;
    out
}

#[test]
fn an_idle_decoder_is_16_bytes() {
    assert!(size_of::<Decoder>() <= 16);
    assert_eq!(Decoder::new(Role::Server).held_bytes(), 0);
}

#[test]
fn the_examples_of_the_rfc_are_understood() {
    // RFC 6455 5.7.
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(said(&hello), [text("Hello")]);
    let unmasked = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(said_when_cut(&unmasked, Role::Client, MAX, Cut::Whole), [text("Hello")]);
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    assert_eq!(said_when_cut(&fragmented, Role::Client, MAX, Cut::Whole), [text("Hello")]);
}

#[test]
fn a_whole_message_is_a_slice_of_the_input_and_holds_nothing() {
    let mut stream = frame(0x81, b"hello");
    let range = stream.as_ptr_range();
    let mut decoder = Decoder::new(Role::Server);
    let mut input = stream.as_mut_slice();
    let Ok(Some(Event::Text(text))) = decoder.next(&mut input, MAX) else { panic!("no text") };
    assert!(range.contains(&text.as_ptr()));
    assert!(decoder.partial.is_none());
}

#[test]
fn every_length_encoding_is_understood() {
    for bytes in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        let payload = Seeded::new(bytes as u64).bytes(bytes);
        let stream = [frame(0x82, &payload), frame(0x81, b"next")].concat();
        assert_eq!(said(&stream), [Said::Binary(payload), text("next")], "{bytes}");
    }
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let stream = [
        frame(0x01, b"one "),
        frame(0x89, b"ping"),
        frame(0x00, b"two "),
        frame(0x8a, b""),
        frame(0x00, b""),
        frame(0x80, b"three"),
        frame(0x81, b"four"),
    ]
    .concat();
    assert_eq!(
        said(&stream),
        [Said::Ping(b"ping".to_vec()), Said::Pong(Vec::new()), text("one two three"), text("four")]
    );
}

#[test]
fn a_message_of_empty_fragments_is_empty() {
    let stream = [frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")].concat();
    assert_eq!(said(&stream), [text("")]);
    assert_eq!(said(&frame(0x82, b"")), [Said::Binary(Vec::new())]);
}

#[test]
fn a_character_may_be_cut_by_a_fragment() {
    let euro = "\u{20ac}".as_bytes();
    let stream =
        [frame(0x01, &euro[..1]), frame(0x00, &euro[1..2]), frame(0x80, &euro[2..])].concat();
    assert_eq!(said(&stream), [text("\u{20ac}")]);
}

#[test]
fn each_broken_rule_has_its_violation() {
    let unmasked = {
        let mut out = Vec::new();
        write_frame(&mut out, Opcode::Text, b"hi");
        out
    };
    let cases: &[(&[u8], Violation)] = &[
        (&frame(0xc1, b""), Violation::ReservedBitSet),
        (&frame(0xa1, b""), Violation::ReservedBitSet),
        (&frame(0x91, b""), Violation::ReservedBitSet),
        (&frame(0x83, b""), Violation::OpcodeReserved),
        (&frame(0x87, b""), Violation::OpcodeReserved),
        (&frame(0x8b, b""), Violation::OpcodeReserved),
        (&frame(0x8f, b""), Violation::OpcodeReserved),
        (&unmasked, Violation::FrameNotMasked),
        (&[0x82, 0xfe, 0, 125], Violation::LengthNotMinimal),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::LengthNotMinimal),
        (&[0x82, 0xff, 0x80], Violation::LengthTopBitSet),
        (&frame(0x09, b""), Violation::ControlFrameFragmented),
        (&frame(0x08, b""), Violation::ControlFrameFragmented),
        (&[0x89, 0xfe], Violation::ControlFrameTooLong),
        (&[0x88, 0xff], Violation::ControlFrameTooLong),
        (&frame(0x80, b""), Violation::ContinuationUnexpected),
        (&frame(0x00, b""), Violation::ContinuationUnexpected),
        (&[frame(0x01, b""), frame(0x81, b"")].concat(), Violation::MessageInterleaved),
        (&[frame(0x02, b"a"), frame(0x02, b"")].concat(), Violation::MessageInterleaved),
        (&frame(0x88, b"\x03"), Violation::CloseFrameTooShort),
        (&frame(0x88, b"\x03\xed"), Violation::CloseCodeInvalid),
        (&frame(0x88, b"\x03\xe8\xc3"), Violation::CloseReasonNotUtf8),
        (&frame(0x81, b"\xff"), Violation::TextNotUtf8),
        (&frame(0x81, b"cut \xe2\x82"), Violation::TextNotUtf8),
    ];
    for (stream, violation) in cases {
        assert_eq!(said(stream), [Said::Broke(*violation)], "{stream:x?}");
    }
}

#[test]
fn a_client_refuses_masked_frames() {
    let stream = frame(0x81, b"hi");
    for cut in Cut::every(3) {
        assert_eq!(
            said_when_cut(&stream, Role::Client, MAX, cut),
            [Said::Broke(Violation::FrameMasked)]
        );
    }
}

#[test]
fn what_came_before_a_violation_is_still_said() {
    let stream = [frame(0x81, b"good"), frame(0x89, b"p"), frame(0x81, b"\x80")].concat();
    assert_eq!(
        said(&stream),
        [text("good"), Said::Ping(b"p".to_vec()), Said::Broke(Violation::TextNotUtf8)]
    );
}

#[test]
fn bad_text_fails_inside_an_unfinished_frame() {
    // The frame claims 20 bytes; the seventh cannot be part of any text.
    let stream = frame(0x81, b"hello \x80-------------");
    let mut decoder = Decoder::new(Role::Server);
    let mut said = Vec::new();
    let header = 6;
    assert!(feed(&mut decoder, &mut stream[..header + 6].to_vec(), MAX, &mut said));
    assert!(!feed(&mut decoder, &mut stream[header + 6..header + 7].to_vec(), MAX, &mut said));
    assert_eq!(said, [Said::Broke(Violation::TextNotUtf8)]);
}

#[test]
fn bad_text_fails_inside_an_unfinished_character() {
    // F4 may begin a character, 90 cannot follow it: there is no need to wait for the other two.
    let stream = [frame(0x01, b"\xf4"), frame(0x00, b"\x90\x80")].concat();
    let mut decoder = Decoder::new(Role::Server);
    let mut said = Vec::new();
    let until_second_byte = stream.len() - 1;
    assert!(!feed(&mut decoder, &mut stream[..until_second_byte].to_vec(), MAX, &mut said));
    assert_eq!(said, [Said::Broke(Violation::TextNotUtf8)]);
}

#[test]
fn a_text_must_not_end_inside_a_character_whatever_fragment_it_ends_in() {
    let stream = [frame(0x01, b"\xe2"), frame(0x00, b"\x82"), frame(0x80, b"")].concat();
    assert_eq!(said(&stream), [Said::Broke(Violation::TextNotUtf8)]);
}

#[test]
fn a_message_of_exactly_the_maximum_is_taken_and_one_byte_more_is_not() {
    let at_max = [frame(0x01, &[b'a'; 60]), frame(0x80, &[b'b'; 40])].concat();
    assert_eq!(said_with_max(&at_max, 100).len(), 1);
    let above = [frame(0x01, &[b'a'; 60]), frame(0x80, &[b'b'; 41])].concat();
    assert_eq!(said_with_max(&above, 100), [Said::Broke(Violation::MessageTooBig)]);
    assert_eq!(said_with_max(&frame(0x82, &[0; 100]), 100), [Said::Binary(vec![0; 100])]);
    assert_eq!(
        said_with_max(&frame(0x82, &[0; 101]), 100),
        [Said::Broke(Violation::MessageTooBig)]
    );
    // Control frames are bounded by their own rule.
    assert_eq!(said_with_max(&frame(0x89, b"four"), 3), [Said::Ping(b"four".to_vec())]);
}

#[test]
fn a_claim_is_refused_before_a_byte_is_kept() {
    let mut huge = vec![0x82, 0xff];
    huge.extend_from_slice(&(u64::MAX >> 1).to_be_bytes());
    huge.extend_from_slice(&KEY);
    assert_eq!(said(&huge), [Said::Broke(Violation::MessageTooBig)]);
    // Begun before: the sum must not wrap.
    assert_eq!(
        said(&[frame(0x02, b"abc"), [&[0x80], &huge[1..]].concat()].concat()),
        [Said::Broke(Violation::MessageTooBig)]
    );
}

#[test]
fn memory_is_taken_for_bytes_received_not_for_bytes_claimed() {
    let mut stream = vec![0x82, 0xff];
    stream.extend_from_slice(&(MAX as u64).to_be_bytes());
    stream.extend_from_slice(&KEY);
    let mut decoder = Decoder::new(Role::Server);
    let mut said = Vec::new();
    assert!(feed(&mut decoder, &mut stream, MAX, &mut said));
    assert!(decoder.held_bytes() <= 256, "{}", decoder.held_bytes());
    let mut received = 0;
    while received < 100_000 {
        assert!(feed(&mut decoder, &mut [0; 1000], MAX, &mut said));
        received += 1000;
        assert!(decoder.held_bytes() <= 2 * received + 256, "{}", decoder.held_bytes());
    }
    assert_eq!(said, []);
}

#[test]
fn room_for_a_message_never_exceeds_what_the_message_can_become() {
    let payload = [7; 1500];
    let mut stream = frame(0x82, &payload);
    let last = stream.pop().unwrap();
    let mut decoder = Decoder::new(Role::Server);
    let mut said = Vec::new();
    for piece in stream.chunks_mut(100) {
        assert!(feed(&mut decoder, piece, MAX, &mut said));
    }
    assert!(decoder.held_bytes() <= 1500 + size_of::<Partial>());
    assert!(feed(&mut decoder, &mut [last], MAX, &mut said));
    assert_eq!(said, [Said::Binary(payload.to_vec())]);
}

#[test]
fn nothing_is_held_once_the_message_is_done() {
    let stream = [frame(0x01, b"begun "), frame(0x89, b"ping"), frame(0x80, b"done")].concat();
    let mut decoder = Decoder::new(Role::Server);
    let mut said = Vec::new();
    for byte in stream {
        assert!(feed(&mut decoder, &mut [byte], MAX, &mut said));
    }
    assert_eq!(said.len(), 2);
    assert!(decoder.partial.is_none());
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn nothing_is_heard_after_the_close_frame() {
    let stream = [frame(0x88, b"\x03\xe8bye"), frame(0x81, b"late"), vec![0xff; 40]].concat();
    assert_eq!(said(&stream), [Said::Close(Some((1000, "bye".to_owned())))]);
    assert_eq!(said(&frame(0x88, b"")), [Said::Close(None)]);
    let inside = [frame(0x01, b"begun"), frame(0x88, b"\x0f\xa0"), frame(0x80, b"")].concat();
    assert_eq!(said(&inside), [Said::Close(Some((4000, String::new())))]);
}

#[test]
fn a_message_may_have_any_number_of_fragments() {
    let mut stream = frame(0x02, &[0; 64]);
    for index in 1..65_536_u32 {
        stream.extend(frame(if index == 65_535 { 0x80 } else { 0x00 }, &[index as u8; 64]));
    }
    let max = 65_536 * 64;
    let heard = said_when_cut(&stream, Role::Server, max, Cut::Seed(1));
    let [Said::Binary(payload)] = heard.as_slice() else { panic!("one message") };
    assert_eq!(payload.len(), max);
    assert!(payload.chunks(64).enumerate().all(|(index, chunk)| chunk == [index as u8; 64]));
}

/// A stream of random frames that is valid until, perhaps, random damage.
fn random_stream(seed: u64) -> Vec<u8> {
    let mut seeded = Seeded::new(seed);
    let mut stream = Vec::new();
    let mut is_inside = false;
    for _ in 0..seeded.below(12) {
        let length = [3, 30, 140, 700][seeded.below(4)];
        let length = seeded.below(length);
        let fin = seeded.below(2) == 0;
        let first = match seeded.below(8) {
            0 => 0x89,
            1 => 0x8a,
            _ if is_inside => u8::from(fin) << 7,
            2..=4 => 0x01 | u8::from(fin) << 7,
            _ => 0x02 | u8::from(fin) << 7,
        };
        let is_control = first >= 0x88;
        if !is_control {
            is_inside = !fin;
        }
        let payload = if seeded.below(4) == 0 {
            seeded.bytes(length)
        } else {
            "na\u{ef}ve \u{20ac} \u{1f980}!".bytes().cycle().take(length).collect()
        };
        let payload = &payload[..payload.len().min(if is_control { 125 } else { 700 })];
        stream.extend(frame(first, payload));
    }
    if seeded.below(3) == 0 && !stream.is_empty() {
        let at = seeded.below(stream.len());
        stream[at] ^= 1 << seeded.below(8);
    }
    stream
}

#[test]
fn a_random_stream_means_the_same_however_it_is_cut() {
    for seed in 0..600 {
        let stream = random_stream(seed);
        let whole = said_when_cut(&stream, Role::Server, 1000, Cut::Whole);
        for cut in Cut::every(6) {
            assert_eq!(
                said_when_cut(&stream, Role::Server, 1000, cut),
                whole,
                "stream of seed {seed}, {cut:?}"
            );
        }
    }
}

#[test]
fn what_tungstenite_sends_is_understood() {
    use std::io::Cursor;
    use tokio_tungstenite::tungstenite::protocol::{Role as TheirRole, WebSocket};
    use tokio_tungstenite::tungstenite::{Bytes, Message};

    for seed in 0..50 {
        let mut seeded = Seeded::new(seed);
        let mut theirs =
            WebSocket::from_raw_socket(Cursor::new(Vec::new()), TheirRole::Client, None);
        let mut expected = Vec::new();
        for _ in 0..10 {
            let length = seeded.below(70_000);
            let message = match seeded.below(4) {
                0 => {
                    let payload = seeded.bytes(length);
                    expected.push(Said::Binary(payload.clone()));
                    Message::Binary(payload.into())
                }
                1 => {
                    let payload = seeded.bytes(length % 126);
                    expected.push(Said::Ping(payload.clone()));
                    Message::Ping(Bytes::from(payload))
                }
                _ => {
                    let payload = "\u{20ac}5 ".repeat(length / 5);
                    expected.push(text(&payload));
                    Message::text(payload)
                }
            };
            theirs.send(message).unwrap();
        }
        let stream = theirs.get_ref().get_ref();
        for cut in [Cut::Whole, Cut::Seed(seed), Cut::Seed(seed + 1)] {
            assert_eq!(said_when_cut(stream, Role::Server, MAX, cut), expected, "{seed} {cut:?}");
        }
    }
}

/// A masked frame whose first byte is `first`.
fn with_first_byte(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_masked(&mut out, Opcode::Text, payload, KEY);
    out[0] = first;
    out
}

#[test]
fn a_compressed_message_is_handed_out_as_it_came_in_one_piece() {
    // RFC 7692 7.2.3.1: "Hello" in one frame, then in two, with a ping between them.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let stream = [
        with_first_byte(0xc1, &hello),
        with_first_byte(0x42, &hello[..3]),
        with_first_byte(0x89, b"?"),
        with_first_byte(0x00, b""),
        with_first_byte(0x80, &hello[3..]),
        // Not every message has to be compressed (RFC 7692 6).
        with_first_byte(0x81, b"plain"),
        // It is no text yet, so nothing is wrong with its bytes.
        with_first_byte(0x41, b"\xff"),
        with_first_byte(0x80, b"\xfe"),
    ];
    let expected = [
        Said::Compressed(Opcode::Text, hello.to_vec()),
        Said::Ping(b"?".to_vec()),
        Said::Compressed(Opcode::Binary, hello.to_vec()),
        text("plain"),
        Said::Compressed(Opcode::Text, b"\xff\xfe".to_vec()),
    ];
    assert_eq!(said_compressed(&stream.concat(), MAX), expected);
}

#[test]
fn the_compressed_bit_is_refused_where_it_does_not_belong() {
    let begun = with_first_byte(0x41, b"a");
    for (first, before) in [(0x80, false), (0xc0, true), (0x40, true), (0xc8, false), (0xc9, true)]
    {
        let stream =
            [if before { &begun[..] } else { &[] }, &with_first_byte(first, b"b")].concat();
        let expected = match first {
            0x80 => Violation::ContinuationUnexpected,
            _ => Violation::CompressedBitMisplaced,
        };
        assert_eq!(said_compressed(&stream, MAX), [Said::Broke(expected)], "{first:x}");
    }
    // A second message may not begin inside of one, compressed or not.
    let stream = [begun, with_first_byte(0xc1, b"b")].concat();
    assert_eq!(said_compressed(&stream, MAX), [Said::Broke(Violation::MessageInterleaved)]);
    // Without an agreement the bit means nothing, and the other two never do.
    for first in [0xc1, 0xa1, 0x91] {
        let stream = with_first_byte(first, b"a");
        assert_eq!(said(&stream), [Said::Broke(Violation::ReservedBitSet)]);
    }
    for first in [0xe1, 0xd1, 0xa1] {
        let stream = with_first_byte(first, b"a");
        assert_eq!(said_compressed(&stream, MAX), [Said::Broke(Violation::ReservedBitSet)]);
    }
}

#[test]
fn what_cannot_be_compressed_may_be_as_much_longer_as_that_makes_it() {
    let most = 1_000 + 125 + 64;
    let whole = |bytes| with_first_byte(0xc2, &vec![0; bytes]);
    let pieces = |bytes: usize| {
        [with_first_byte(0x42, &vec![0; 700]), with_first_byte(0x80, &vec![0; bytes - 700])]
            .concat()
    };
    let expected = [Said::Compressed(Opcode::Binary, vec![0; most])];
    assert_eq!(said_compressed(&whole(most), 1_000), expected);
    assert_eq!(said_compressed(&pieces(most), 1_000), expected);
    let too_big = [Said::Broke(Violation::MessageTooBig)];
    assert_eq!(said_compressed(&whole(most + 1), 1_000), too_big);
    assert_eq!(said_compressed(&pieces(most + 1), 1_000), too_big);
    // Not so one that is not compressed.
    assert_eq!(said_compressed(&with_first_byte(0x82, &[0; 1_001]), 1_000), too_big);
}
