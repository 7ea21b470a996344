//! The close frame: which codes may be on the wire, and how to write and read one.

use super::frame::{self, Opcode};
use super::violation::Violation;
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;

/// The purpose was fulfilled.
pub const NORMAL: u16 = 1000;
/// The server is going down, or the page was left.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// Data of a kind the receiver does not take.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// Text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A message that breaks the receiver's policy.
pub const POLICY_VIOLATION: u16 = 1008;
/// A message longer than the receiver takes.
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// The server met something it did not expect.
pub const INTERNAL_ERROR: u16 = 1011;
/// The server restarts; come back.
pub const SERVICE_RESTART: u16 = 1012;
/// The server is overloaded; come back later.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// Ours: the client does not read what its channels' rules do not let it miss.
pub const SLOW_CONSUMER: u16 = 4409;

/// Bytes of a close reason: what a control frame holds beside the code.
pub const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// Whether a close frame may carry `code`.
///
/// RFC 6455 7.4: 1004, 1005, 1006 and 1015 are never on the wire, 1012-1014 came through the
/// registry, 3000-3999 are registered by libraries, 4000-4999 are private.
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends an unmasked close frame. `reason` is cut at a character boundary when it is too long
/// for a control frame.
///
/// # Panics
/// When `code` must not be sent: the caller chose it, not the peer.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    assert!(may_be_sent(code), "close code {code} must not be sent");
    frame::write_frame_with(out, Opcode::Close, |body| write_payload(body, code, reason));
}

/// Appends a masked close frame, as a client sends it.
///
/// # Panics
/// When `code` must not be sent.
pub fn write_close_masked(out: &mut Vec<u8>, code: u16, reason: &str, key: [u8; 4]) {
    assert!(may_be_sent(code), "close code {code} must not be sent");
    let mut payload = Vec::with_capacity(CONTROL_PAYLOAD_BYTES_MAX);
    write_payload(&mut payload, code, reason);
    frame::write_masked(out, Opcode::Close, &payload, key);
}

fn write_payload(body: &mut Vec<u8>, code: u16, reason: &str) {
    body.extend_from_slice(&code.to_be_bytes());
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    body.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Reads the payload of a close frame: nothing, or a code and a reason.
///
/// # Errors
/// RFC 6455 5.5.1 and 7.4: half a code, a code that must not be sent, a reason that is not UTF-8.
pub fn parse_payload(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseFrameTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCodeInvalid);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_never_travel_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!may_be_sent(code), "{code}");
            let payload = code.to_be_bytes();
            assert_eq!(parse_payload(&payload), Err(Violation::CloseCodeInvalid), "{code}");
        }
    }

    #[test]
    fn codes_of_the_rfc_the_registry_and_the_private_range_are_taken() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014] {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [3000, 3999, 4000, 4999] {
            assert_eq!(parse_payload(&u16::to_be_bytes(code)), Ok(Some((code, ""))));
        }
    }

    #[test]
    fn a_close_frame_may_be_empty_but_not_hold_half_a_code() {
        assert_eq!(parse_payload(&[]), Ok(None));
        assert_eq!(parse_payload(&[3]), Err(Violation::CloseFrameTooShort));
    }

    #[test]
    fn a_reason_must_be_utf8() {
        assert_eq!(parse_payload(b"\x03\xe8bye"), Ok(Some((1000, "bye"))));
        assert_eq!(parse_payload(b"\x03\xe8\xff"), Err(Violation::CloseReasonNotUtf8));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        write_close(&mut out, 1000, &"\u{20ac}".repeat(60));
        assert_eq!(out[0], 0x88);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        let (code, reason) = parse_payload(&out[2..]).unwrap().unwrap();
        assert_eq!(code, 1000);
        assert_eq!(reason, "\u{20ac}".repeat(41));
    }

    #[test]
    #[should_panic(expected = "must not be sent")]
    fn we_never_send_1006() {
        write_close(&mut Vec::new(), 1006, "");
    }
}
