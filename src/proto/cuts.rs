//! Test support: the ways to cut a stream. Every parser is fed whole, byte by byte, and at
//! seeded places.

/// A small seeded generator (splitmix64), so that a failing cut can be named by a number.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// How a stream is cut before it is fed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Whole,
    ByteByByte,
    Seed(u64),
}

impl Cut {
    /// Whole, byte by byte, and at the places of this many seeds.
    pub(crate) fn every(seeds: u64) -> impl Iterator<Item = Self> {
        [Self::Whole, Self::ByteByByte].into_iter().chain((0..seeds).map(Self::Seed))
    }

    /// The pieces, in order. None is empty.
    pub(crate) fn pieces(self, stream: &[u8]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut rest = stream;
        let mut seeded = match self {
            Self::Seed(seed) => Seeded::new(seed),
            _ => Seeded::new(0),
        };
        while !rest.is_empty() {
            let bytes = match self {
                Self::Whole => rest.len(),
                Self::ByteByByte => 1,
                // Mostly small pieces, at times a long one.
                Self::Seed(_) => {
                    let most = 1 << (1 + seeded.below(10));
                    (1 + seeded.below(most)).min(rest.len())
                }
            };
            let (piece, after) = rest.split_at(bytes);
            pieces.push(piece.to_vec());
            rest = after;
        }
        pieces
    }
}
