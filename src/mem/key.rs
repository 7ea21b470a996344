//! A name for one life of one table slot.

use std::fmt;

/// Names one life of one slot: `index` says where, `generation` says which life.
///
/// Slots are reused; a key is not, until its 24-bit generation wraps. Whoever holds the key
/// of an earlier life finds nothing, instead of somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Generations are 24 bits wide, so that a key and an 8-bit tag fit one 64-bit word
    /// (the `user_data` of an io_uring completion).
    pub const GENERATION_MASK: u32 = 0x00ff_ffff;

    /// The key of life `generation` of slot `index`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation: generation & Self::GENERATION_MASK }
    }

    /// The slot, counted from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Which life of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The key of the slot's next life.
    #[must_use]
    pub const fn next_life(self) -> Self {
        Self::new(self.index, self.generation.wrapping_add(1))
    }

    /// The key and an 8-bit tag in one word: tag, generation, index from high to low.
    #[must_use]
    pub const fn pack(self, tag: u8) -> u64 {
        (tag as u64) << 56 | (self.generation as u64) << 32 | self.index as u64
    }

    /// Takes apart what [`pack`](Self::pack) put together.
    #[must_use]
    pub const fn unpack(word: u64) -> (u8, Self) {
        ((word >> 56) as u8, Self::new(word as u32, (word >> 32) as u32))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_packed_key_comes_back_whole_for_every_corner() {
        for index in [0, 1, 77, u32::MAX] {
            for generation in [0, 1, Key::GENERATION_MASK] {
                for tag in [0, 1, u8::MAX] {
                    let key = Key::new(index, generation);
                    assert_eq!(Key::unpack(key.pack(tag)), (tag, key));
                }
            }
        }
    }

    #[test]
    fn the_last_generation_is_followed_by_the_first() {
        assert_eq!(Key::new(5, Key::GENERATION_MASK).next_life(), Key::new(5, 0));
    }
}
