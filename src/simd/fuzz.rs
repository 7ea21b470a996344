//! Every twin of the mask against the letter of the RFC.

use super::{portable, xor_mask};
use crate::fuzz::Choices;

/// Masks what the input says with every twin this CPU has, whole and split.
///
/// # Panics
/// When a twin, the portable one included, disagrees with RFC 6455 5.3 or touches a byte outside.
pub fn masks(data: &[u8]) {
    let mut choices = Choices::new(data);
    let key = [choices.byte(), choices.byte(), choices.byte(), choices.byte()];
    // Offsets are those of a payload of some length, so they may be anything.
    let offset = usize::from(choices.word()) << choices.one_of(&[0, 3, 13]);
    let start = usize::from(choices.byte() % 64);
    let repeats = 1 + usize::from(choices.byte() % 64);
    let split = usize::from(choices.word());
    let behind = usize::from(choices.byte() % 64);
    let bytes = choices.remaining().repeat(repeats);
    let start = start.min(bytes.len());
    let end = bytes.len() - behind.min(bytes.len() - start);

    let mut expected = bytes.clone();
    for (index, byte) in expected[start..end].iter_mut().enumerate() {
        *byte ^= key[(offset + index) % 4];
    }
    for (name, mask) in twins() {
        let mut whole = bytes.clone();
        mask(&mut whole[start..end], key, offset);
        assert!(whole == expected, "{name}: {} bytes from {start}", end - start);

        let mut halves = bytes.clone();
        let split = start + split % (end - start + 1);
        mask(&mut halves[start..split], key, offset);
        mask(&mut halves[split..end], key, offset + (split - start));
        assert!(halves == expected, "{name}: split at {split}");
    }
}

type Mask = fn(&mut [u8], [u8; 4], usize);

fn twins() -> Vec<(&'static str, Mask)> {
    #[allow(unused_mut)]
    let mut twins: Vec<(&'static str, Mask)> =
        vec![("portable", portable::xor_mask), ("chosen", xor_mask)];
    #[cfg(target_arch = "x86_64")]
    twins.push(("sse2", super::x86_64::xor_mask_sse2));
    #[cfg(target_arch = "aarch64")]
    twins.push(("neon", super::aarch64::xor_mask_neon));
    twins
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_mask_alike() {
        crate::fuzz::replay("masks", super::masks);
    }
}
