//! From what came in to what was said.

use std::mem;

use flate2::{Decompress, FlushDecompress, Status};

use super::{FLUSHED, KEPT_BYTES_MAX};
use crate::limits::FINAL_BLOCKS_PER_MESSAGE_MAX;
use crate::proto::ws::Violation;

/// The furthest that DEFLATE data refers back.
const REACH_BYTES_MAX: usize = 32 * 1024;

/// Bytes that the first of a message's inflating makes room for.
const ROOM_BYTES_MIN: usize = 4 * 1024;

/// RFC 7692 7.2.2: what was taken off the end of a message. Behind it a block that is empty and the
/// last: inflating it shows that the message was whole, for only between two blocks is it one.
const TAIL: [u8; 9] =
    [FLUSHED[0], FLUSHED[1], FLUSHED[2], FLUSHED[3], 1, FLUSHED[0], FLUSHED[1], 0xff, 0xff];

/// Inflates messages, one after the other, of whichever connection.
#[derive(Debug, Default)]
pub struct Inflater {
    state: Option<Decompress>,
    /// The message inflated last; only its front has a meaning.
    pub(super) message: Vec<u8>,
}

impl Inflater {
    /// The message that `compressed` is, which may refer back to `window`.
    ///
    /// Memory and time are bounded by `message_bytes_max`, whatever the data claims to become.
    ///
    /// # Errors
    /// When the message is longer than that, or is no DEFLATE data.
    pub fn inflate(
        &mut self,
        window: &[u8],
        compressed: &[u8],
        message_bytes_max: usize,
    ) -> Result<&mut [u8], Violation> {
        // zlib has nothing to say when it is flushed a second time with nothing between, and its
        // users send that nothing as an empty message.
        if compressed.is_empty() {
            return Ok(&mut []);
        }
        if self.message.len() > KEPT_BYTES_MAX {
            self.message = Vec::new();
        }
        let state = self.state.get_or_insert_with(|| Decompress::new(false));
        let message = &mut self.message;
        begin(state, window, &[]);
        let (mut written, mut final_blocks) = (0, 0);
        let (mut rest, mut tail) = (compressed, TAIL.as_slice());
        loop {
            if rest.is_empty() {
                rest = mem::take(&mut tail);
            }
            if written == message.len() {
                make_room(message, message_bytes_max);
            }
            let before = (state.total_in(), state.total_out());
            let status = state
                .decompress(rest, &mut message[written..], FlushDecompress::None)
                .map_err(|_| Violation::DeflateBroken)?;
            rest = &rest[(state.total_in() - before.0) as usize..];
            written += (state.total_out() - before.1) as usize;
            if written > message_bytes_max {
                return Err(Violation::MessageTooBig);
            }
            let is_stuck = before == (state.total_in(), state.total_out());
            match status {
                Status::StreamEnd if rest.is_empty() && tail.is_empty() => break,
                // RFC 7692 7.2.3.4: a message may have final blocks of its own.
                Status::StreamEnd => {
                    final_blocks += 1;
                    if final_blocks > FINAL_BLOCKS_PER_MESSAGE_MAX {
                        return Err(Violation::DeflateBroken);
                    }
                    begin(state, window, &message[..written]);
                }
                // There was room, so it is data that is missing: it ended inside a block.
                Status::Ok | Status::BufError if is_stuck => return Err(Violation::DeflateBroken),
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(&mut self.message[..written])
    }
}

/// Begins a stream that may refer back to `window` and `message` behind it.
fn begin(state: &mut Decompress, window: &[u8], message: &[u8]) {
    state.reset(false);
    let message = &message[message.len().saturating_sub(REACH_BYTES_MAX)..];
    let window = &window[window.len().saturating_sub(REACH_BYTES_MAX - message.len())..];
    for said in [window, message] {
        if !said.is_empty() {
            state.set_dictionary(said).expect("a raw stream takes any dictionary before its data");
        }
    }
}

/// Room doubles up to one byte more than a message may have: that byte shows that it has more.
fn make_room(message: &mut Vec<u8>, message_bytes_max: usize) {
    let room = (message.len() * 2).max(ROOM_BYTES_MIN).min(message_bytes_max + 1);
    debug_assert!(room > message.len(), "a message that is too long has been noticed");
    message.reserve_exact(room - message.len());
    message.resize(room, 0);
}
