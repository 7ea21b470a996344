//! Every way a peer can break RFC 6455 and RFC 7692: one rule, one variant, so that a test, a log line and a
//! metric can name it.

use std::fmt;

/// A rule of RFC 6455 or RFC 7692 the peer has broken. The connection fails with [`Violation::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A reserved bit is set and no extension was agreed on.
    ReservedBitSet,
    /// Opcodes 3-7 and 11-15 mean nothing yet.
    OpcodeReserved,
    /// A client's frame came without a mask.
    FrameNotMasked,
    /// A server's frame came with a mask.
    FrameMasked,
    /// A length was written in more bytes than it needs.
    LengthNotMinimal,
    /// A 64-bit length has its most significant bit set.
    LengthTopBitSet,
    /// A control frame came without FIN.
    ControlFrameFragmented,
    /// A control frame claims more than 125 bytes.
    ControlFrameTooLong,
    /// A continuation came though no message was begun.
    ContinuationUnexpected,
    /// A new message began inside an unfinished one.
    MessageInterleaved,
    /// A close frame carries one byte: half a code.
    CloseFrameTooShort,
    /// A close code that must not be sent.
    CloseCodeInvalid,
    /// A close reason that is not UTF-8.
    CloseReasonNotUtf8,
    /// A text message that is not UTF-8.
    TextNotUtf8,
    /// A message longer than the receiver takes.
    MessageTooBig,
    /// The bit that says "compressed" on a frame that begins no message.
    CompressedBitMisplaced,
    /// A compressed message that is not DEFLATE data, or not all of it.
    DeflateBroken,
}

impl Violation {
    /// All of them, for metrics that must exist before they count.
    pub const ALL: [Self; 17] = [
        Self::ReservedBitSet,
        Self::OpcodeReserved,
        Self::FrameNotMasked,
        Self::FrameMasked,
        Self::LengthNotMinimal,
        Self::LengthTopBitSet,
        Self::ControlFrameFragmented,
        Self::ControlFrameTooLong,
        Self::ContinuationUnexpected,
        Self::MessageInterleaved,
        Self::CloseFrameTooShort,
        Self::CloseCodeInvalid,
        Self::CloseReasonNotUtf8,
        Self::TextNotUtf8,
        Self::MessageTooBig,
        Self::CompressedBitMisplaced,
        Self::DeflateBroken,
    ];

    /// The code of the close frame that answers it.
    #[must_use]
    pub fn close_code(self) -> u16 {
        use super::close::{INVALID_PAYLOAD, MESSAGE_TOO_BIG, PROTOCOL_ERROR};
        match self {
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 | Self::DeflateBroken => INVALID_PAYLOAD,
            Self::MessageTooBig => MESSAGE_TOO_BIG,
            _ => PROTOCOL_ERROR,
        }
    }

    /// What the close frame says, for whoever debugs the peer.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBitSet => "reserved bit set without an extension",
            Self::OpcodeReserved => "reserved opcode",
            Self::FrameNotMasked => "frame from a client must be masked",
            Self::FrameMasked => "frame from a server must not be masked",
            Self::LengthNotMinimal => "payload length not in its shortest form",
            Self::LengthTopBitSet => "payload length above 2^63",
            Self::ControlFrameFragmented => "control frame must not be fragmented",
            Self::ControlFrameTooLong => "control frame longer than 125 bytes",
            Self::ContinuationUnexpected => "continuation without a message",
            Self::MessageInterleaved => "new message inside an unfinished one",
            Self::CloseFrameTooShort => "close frame with half a code",
            Self::CloseCodeInvalid => "close code must not be sent",
            Self::CloseReasonNotUtf8 => "close reason is not UTF-8",
            Self::TextNotUtf8 => "text is not UTF-8",
            Self::MessageTooBig => "message longer than message_bytes_max",
            Self::CompressedBitMisplaced => "compressed bit on a frame that begins no message",
            Self::DeflateBroken => "compressed message is broken",
        }
    }

    /// The RFC and the section of it that has the rule.
    #[must_use]
    pub fn section(self) -> &'static str {
        match self {
            Self::FrameNotMasked | Self::FrameMasked => "RFC 6455 5.1",
            Self::ReservedBitSet
            | Self::OpcodeReserved
            | Self::LengthNotMinimal
            | Self::LengthTopBitSet => "RFC 6455 5.2",
            Self::ContinuationUnexpected | Self::MessageInterleaved => "RFC 6455 5.4",
            Self::ControlFrameFragmented | Self::ControlFrameTooLong => "RFC 6455 5.5",
            Self::CloseFrameTooShort | Self::CloseReasonNotUtf8 => "RFC 6455 5.5.1",
            Self::CloseCodeInvalid => "RFC 6455 7.4",
            Self::MessageTooBig => "RFC 6455 7.4.1",
            Self::TextNotUtf8 => "RFC 6455 8.1",
            Self::CompressedBitMisplaced => "RFC 7692 6.1",
            Self::DeflateBroken => "RFC 7692 7.2.2",
        }
    }

    /// A stable label for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReservedBitSet => "reserved_bit_set",
            Self::OpcodeReserved => "opcode_reserved",
            Self::FrameNotMasked => "frame_not_masked",
            Self::FrameMasked => "frame_masked",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTopBitSet => "length_top_bit_set",
            Self::ControlFrameFragmented => "control_frame_fragmented",
            Self::ControlFrameTooLong => "control_frame_too_long",
            Self::ContinuationUnexpected => "continuation_unexpected",
            Self::MessageInterleaved => "message_interleaved",
            Self::CloseFrameTooShort => "close_frame_too_short",
            Self::CloseCodeInvalid => "close_code_invalid",
            Self::CloseReasonNotUtf8 => "close_reason_not_utf8",
            Self::TextNotUtf8 => "text_not_utf8",
            Self::MessageTooBig => "message_too_big",
            Self::CompressedBitMisplaced => "compressed_bit_misplaced",
            Self::DeflateBroken => "deflate_broken",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.reason(), self.section())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;

    #[test]
    fn every_violation_has_a_name_of_its_own() {
        for (index, violation) in Violation::ALL.into_iter().enumerate() {
            assert_eq!(
                Violation::ALL.iter().position(|other| other.name() == violation.name()),
                Some(index)
            );
        }
    }

    #[test]
    fn every_reason_fits_a_close_frame_and_every_code_may_be_sent() {
        for violation in Violation::ALL {
            assert!(violation.reason().len() + 2 <= CONTROL_PAYLOAD_BYTES_MAX);
            assert!(super::super::close::may_be_sent(violation.close_code()));
        }
    }
}
