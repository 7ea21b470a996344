//! DEFLATE (RFC 1951) read in the plainest way there is, bit by bit, to hold the inflater and the
//! deflater against. Compiled for tests and fuzzing only.

use crate::limits::FINAL_BLOCKS_PER_MESSAGE_MAX;

/// It is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What a message says, and how far back it refers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) message: Vec<u8>,
    pub(super) distance_max: usize,
}

/// RFC 1951 3.2.5: the length and distance codes from 257 and from 0, and their extra bits.
const LENGTHS: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
    163, 195, 227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCES: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
    2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_BITS: [u8; 30] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
];

/// RFC 1951 3.2.7: in which order the lengths of the code of code lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const END_OF_BLOCK: u16 = 256;

/// Reads a message as RFC 7692 7.2.2 says, which may refer back to `window`.
pub(super) fn read(window: &[u8], compressed: &[u8]) -> Result<Read, Broken> {
    if compressed.is_empty() {
        return Ok(Read { message: Vec::new(), distance_max: 0 });
    }
    let data = [compressed, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut reader = Reader { data: &data, bit: 0, said: window.to_vec(), distance_max: 0 };
    let mut final_blocks = 0;
    loop {
        let is_final = reader.bits(1)? == 1;
        reader.block()?;
        if !is_final {
            continue;
        }
        reader.align();
        if reader.bit == data.len() * 8 {
            break;
        }
        final_blocks += 1;
        if final_blocks > FINAL_BLOCKS_PER_MESSAGE_MAX {
            return Err(Broken);
        }
    }
    let Reader { mut said, distance_max, .. } = reader;
    Ok(Read { message: said.split_off(window.len()), distance_max })
}

struct Reader<'a> {
    data: &'a [u8],
    /// The next bit of `data`.
    bit: usize,
    /// The window and the message behind it.
    said: Vec<u8>,
    distance_max: usize,
}

impl Reader<'_> {
    fn bits(&mut self, count: u8) -> Result<u16, Broken> {
        let mut value = 0;
        for place in 0..count {
            let byte = self.data.get(self.bit / 8).ok_or(Broken)?;
            value |= u16::from(byte >> (self.bit % 8) & 1) << place;
            self.bit += 1;
        }
        Ok(value)
    }

    fn align(&mut self) {
        self.bit = self.bit.next_multiple_of(8);
    }

    fn block(&mut self) -> Result<(), Broken> {
        match self.bits(2)? {
            0 => self.stored(),
            1 => {
                let lengths: Vec<u8> = (0..288)
                    .map(|symbol| match symbol {
                        0..=143 => 8,
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                self.coded(&Code::new(&lengths)?, &Code::new(&[5; 32])?)
            }
            2 => self.dynamic(),
            _ => Err(Broken),
        }
    }

    fn stored(&mut self) -> Result<(), Broken> {
        self.align();
        let (bytes, complement) = (self.bits(16)?, self.bits(16)?);
        if bytes != !complement {
            return Err(Broken);
        }
        for _ in 0..bytes {
            let byte = self.bits(8)? as u8;
            self.said.push(byte);
        }
        Ok(())
    }

    fn dynamic(&mut self) -> Result<(), Broken> {
        let literals = usize::from(self.bits(5)?) + 257;
        let distances = usize::from(self.bits(5)?) + 1;
        let order = usize::from(self.bits(4)?) + 4;
        if literals > 286 || distances > 30 {
            return Err(Broken);
        }
        let mut lengths = [0; 19];
        for place in &ORDER[..order] {
            lengths[*place] = self.bits(3)? as u8;
        }
        let code = Code::new(&lengths)?;
        if !code.is_complete {
            return Err(Broken);
        }
        let mut lengths: Vec<u8> = Vec::new();
        while lengths.len() < literals + distances {
            let (length, count) = match self.symbol(&code)? {
                length @ 0..=15 => (length as u8, 1),
                16 => (*lengths.last().ok_or(Broken)?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                _ => (0, 11 + self.bits(7)?),
            };
            lengths.extend(std::iter::repeat_n(length, count.into()));
        }
        if lengths.len() > literals + distances || lengths[usize::from(END_OF_BLOCK)] == 0 {
            return Err(Broken);
        }
        let (literals, distances) = lengths.split_at(literals);
        let (literals, distances) = (Code::new(literals)?, Code::new(distances)?);
        // RFC 1951 3.2.7 allows for one code that is not complete: a single one of one bit.
        let is_sound = |code: &Code| code.is_complete || code.bits_max <= 1;
        if !is_sound(&literals) || !is_sound(&distances) {
            return Err(Broken);
        }
        self.coded(&literals, &distances)
    }

    fn coded(&mut self, literals: &Code, distances: &Code) -> Result<(), Broken> {
        loop {
            let symbol = self.symbol(literals)?;
            if symbol < END_OF_BLOCK {
                self.said.push(symbol as u8);
                continue;
            }
            if symbol == END_OF_BLOCK {
                return Ok(());
            }
            let (length, _) = self.extended(symbol - END_OF_BLOCK - 1, &LENGTHS, &LENGTH_BITS)?;
            let symbol = self.symbol(distances)?;
            let (distance, _) = self.extended(symbol, &DISTANCES, &DISTANCE_BITS)?;
            self.distance_max = self.distance_max.max(distance);
            for _ in 0..length {
                let from = self.said.len().checked_sub(distance).ok_or(Broken)?;
                self.said.push(self.said[from]);
            }
        }
    }

    fn extended(&mut self, symbol: u16, bases: &[u16], bits: &[u8]) -> Result<(usize, u8), Broken> {
        let base = *bases.get(usize::from(symbol)).ok_or(Broken)?;
        let bits = bits[usize::from(symbol)];
        Ok((usize::from(base) + usize::from(self.bits(bits)?), bits))
    }

    fn symbol(&mut self, code: &Code) -> Result<u16, Broken> {
        let mut word = 0;
        for bits in 1..=15 {
            word = word << 1 | self.bits(1)?;
            if let Some((_, _, symbol)) =
                code.words.iter().find(|(b, w, _)| (*b, *w) == (bits, word))
            {
                return Ok(*symbol);
            }
        }
        Err(Broken)
    }
}

/// A prefix code: bits, word and symbol of each of its words.
struct Code {
    words: Vec<(u8, u16, u16)>,
    bits_max: u8,
    is_complete: bool,
}

impl Code {
    /// RFC 1951 3.2.2: the code that these lengths describe.
    fn new(lengths: &[u8]) -> Result<Self, Broken> {
        let mut words = Vec::new();
        let mut word = 0_u32;
        for bits in 1..=15 {
            word <<= 1;
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, length)| **length == bits) {
                if word >> bits != 0 {
                    return Err(Broken);
                }
                words.push((bits, word as u16, symbol as u16));
                word += 1;
            }
        }
        let bits_max = words.last().map_or(0, |(bits, ..)| *bits);
        Ok(Self { words, bits_max, is_complete: word == 1 << 15 })
    }
}
