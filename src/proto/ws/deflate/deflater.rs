//! From what is to be said to what goes out.

use flate2::{Compress, Compression, FlushCompress};

use super::{FLUSHED, KEPT_BYTES_MAX, Reach};
use crate::limits::COMPRESSED_PAYLOAD_BYTES_MIN;
use crate::proto::ws::frame::{Opcode, write_compressed};

/// Compresses messages, each by itself.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    /// By [`Reach`].
    states: [Option<Compress>; Reach::ALL.len()],
    compressed: Vec<u8>,
}

impl Deflater {
    /// One that works at `level`, from 1 to 9. Its memory is taken when it is needed.
    #[must_use]
    pub fn new(level: u32) -> Self {
        Self { level: Compression::new(level), states: [None, None], compressed: Vec::new() }
    }

    /// Appends the message `payload` as one compressed frame, if that is shorter than the message:
    /// whether it is. RFC 7692 6: nothing has to be compressed.
    pub fn write_frame(
        &mut self,
        out: &mut Vec<u8>,
        opcode: Opcode,
        payload: &[u8],
        reach: Reach,
    ) -> bool {
        let compressed = self.compress(payload, reach);
        if let Some(compressed) = compressed {
            write_compressed(out, opcode, compressed);
        }
        compressed.is_some()
    }

    /// `payload` compressed, if that makes it shorter.
    fn compress(&mut self, payload: &[u8], reach: Reach) -> Option<&[u8]> {
        if payload.len() < COMPRESSED_PAYLOAD_BYTES_MIN {
            return None;
        }
        let state = self.states[reach as usize].get_or_insert_with(|| {
            Compress::new_with_window_bits(self.level, false, reach.window_bits())
        });
        let compressed = &mut self.compressed;
        compressed.clear();
        if compressed.capacity() > KEPT_BYTES_MAX {
            compressed.shrink_to(KEPT_BYTES_MAX);
        }
        // What needs more than this is no shorter.
        compressed.reserve(payload.len() + FLUSHED.len());
        state.reset();
        state
            .compress_vec(payload, compressed, FlushCompress::Sync)
            .expect("a compressor that was reset compresses anything");
        // A flush that did not fill the room is complete.
        if compressed.len() == compressed.capacity() {
            return None;
        }
        debug_assert_eq!(state.total_in(), payload.len() as u64, "all of it is compressed");
        let compressed = compressed.strip_suffix(&FLUSHED).expect("a flush ends so");
        (compressed.len() < payload.len()).then_some(compressed)
    }
}
