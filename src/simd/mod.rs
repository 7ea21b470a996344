//! Work on bytes that is worth a CPU-specific twin: today the WebSocket mask.
//!
//! [`portable`] is the definition. The twins pass the same tests and are chosen once, at run
//! time, by what the CPU can do. `unsafe` stands only in the CPU-specific files.

pub mod portable;

#[cfg(any(test, fuzzing))]
pub mod fuzz;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::sync::LazyLock;

/// Below this the portable code is used directly: the compiler turns its loop into the baseline's
/// 16-byte vectors and inlines it, and only from here on do wider ones win back the call
/// (measured on an x86-64 server core: even at 256 bytes, a fifth to a third faster above 768).
const VECTOR_BYTES_MIN: usize = 256;

/// The twin this CPU runs. A variant that needs more than the architecture's baseline holds a
/// token that only its own detection can make.
#[derive(Clone, Copy)]
enum Twin {
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    Portable,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(target_arch = "x86_64")]
    Avx2(x86_64::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon,
}

static CHOSEN: LazyLock<Twin> = LazyLock::new(Twin::choose);

impl Twin {
    #[cfg(target_arch = "x86_64")]
    fn choose() -> Self {
        x86_64::Avx2::detect().map_or(Self::Sse2, Self::Avx2)
    }

    #[cfg(target_arch = "aarch64")]
    fn choose() -> Self {
        Self::Neon
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn choose() -> Self {
        Self::Portable
    }

    fn name(self) -> &'static str {
        match self {
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => "sse2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }

    fn xor_mask(self, bytes: &mut [u8], key: [u8; 4], offset: usize) {
        match self {
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Self::Portable => portable::xor_mask(bytes, key, offset),
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => x86_64::xor_mask_sse2(bytes, key, offset),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.xor_mask(bytes, key, offset),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => aarch64::xor_mask_neon(bytes, key, offset),
        }
    }
}

/// Masks or unmasks `bytes` in place (RFC 6455 5.3: both are the same xor).
///
/// `offset` is how many bytes of the same payload came before these: it says where in the key
/// to begin.
#[inline]
pub fn xor_mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    if bytes.len() < VECTOR_BYTES_MIN {
        portable::xor_mask(bytes, key, offset);
    } else {
        CHOSEN.xor_mask(bytes, key, offset);
    }
}

/// The twin in use, for the log line at start and the metric.
#[must_use]
pub fn chosen() -> &'static str {
    CHOSEN.name()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mask = fn(&mut [u8], [u8; 4], usize);

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// The definition written as slowly as the RFC does.
    fn by_the_letter(bytes: &mut [u8], key: [u8; 4], offset: usize) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte ^= key[(offset + index) % 4];
        }
    }

    fn twins() -> Vec<(&'static str, Mask)> {
        #[allow(unused_mut)]
        let mut twins: Vec<(&'static str, Mask)> =
            vec![("portable", portable::xor_mask), ("chosen", xor_mask)];
        #[cfg(target_arch = "x86_64")]
        {
            twins.push(("sse2", x86_64::xor_mask_sse2));
            if x86_64::Avx2::detect().is_some() {
                twins.push(("avx2", |bytes, key, offset| {
                    x86_64::Avx2::detect().expect("detected above").xor_mask(bytes, key, offset);
                }));
            }
        }
        #[cfg(target_arch = "aarch64")]
        twins.push(("neon", aarch64::xor_mask_neon));
        twins
    }

    fn sample(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| (index * 31 + 7) as u8).collect()
    }

    #[test]
    fn every_twin_agrees_with_the_letter_at_every_length_and_offset() {
        for (name, mask) in twins() {
            for length in (0..=130).chain([255, 256, 257, 1000, 4099]) {
                for offset in 0..=31 {
                    let mut expected = sample(length);
                    by_the_letter(&mut expected, KEY, offset);
                    let mut got = sample(length);
                    mask(&mut got, KEY, offset);
                    assert_eq!(got, expected, "{name}: {length} bytes at offset {offset}");
                }
            }
        }
    }

    #[test]
    fn every_twin_agrees_at_every_split_of_the_payload() {
        for (name, mask) in twins() {
            for length in 0..=130 {
                let mut expected = sample(length);
                portable::xor_mask(&mut expected, KEY, 0);
                for split in 0..=length {
                    let mut got = sample(length);
                    let (head, tail) = got.split_at_mut(split);
                    mask(head, KEY, 0);
                    mask(tail, KEY, split);
                    assert_eq!(got, expected, "{name}: {length} bytes split at {split}");
                }
            }
        }
    }

    #[test]
    fn every_twin_agrees_at_every_alignment_and_touches_nothing_outside() {
        for (name, mask) in twins() {
            for start in 0..=32 {
                for length in [0, 1, 15, 16, 31, 32, 33, 63, 64, 127, 128, 130] {
                    let mut got = sample(256);
                    mask(&mut got[start..start + length], KEY, 1);
                    let mut expected = sample(256);
                    by_the_letter(&mut expected[start..start + length], KEY, 1);
                    assert_eq!(got, expected, "{name}: {length} bytes from {start}");
                }
            }
        }
    }

    #[test]
    fn masking_twice_gives_the_payload_back() {
        let mut bytes = sample(1021);
        xor_mask(&mut bytes, KEY, 3);
        assert_ne!(bytes, sample(1021));
        xor_mask(&mut bytes, KEY, 3);
        assert_eq!(bytes, sample(1021));
    }

    #[test]
    fn the_choice_has_a_name() {
        assert!(["portable", "sse2", "avx2", "neon"].contains(&chosen()));
    }
}
