//! The mask in plain safe Rust: the definition every twin is held to.

/// Masks or unmasks `bytes` in place; `offset` bytes of the payload came before them.
#[inline]
pub fn xor_mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = rotated(key, offset);
    // Eight bytes at a time: the key repeats every four, so it fits a word twice whichever way
    // round the machine keeps its bytes.
    let half = u64::from(u32::from_ne_bytes(key));
    let word = half << 32 | half;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key as it stands `offset` bytes into the payload.
#[inline]
pub(super) fn rotated(key: [u8; 4], offset: usize) -> [u8; 4] {
    u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32).to_le_bytes()
}
