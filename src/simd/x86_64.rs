//! The mask on x86-64: SSE2, which every such CPU has, and AVX2, which most have.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_set1_epi32, _mm_storeu_si128, _mm_xor_si128,
    _mm256_loadu_si256, _mm256_set1_epi32, _mm256_storeu_si256, _mm256_xor_si256,
};

use super::portable;

/// Proof that this CPU has AVX2; only [`Avx2::detect`] makes one.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn xor_mask(self, bytes: &mut [u8], key: [u8; 4], offset: usize) {
        // SAFETY: the only thing `xor_mask_avx2` asks for is a CPU with AVX2. `self` exists, its
        // field is private to this file, and `detect`, the one place that makes it, has asked
        // the CPU.
        unsafe { xor_mask_avx2(bytes, key, offset) }
    }
}

#[target_feature(enable = "avx2")]
fn xor_mask_avx2(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    // A vector is a multiple of the key's four bytes, so the rotated key serves to the end.
    let key = portable::rotated(key, offset);
    let mask = _mm256_set1_epi32(i32::from_ne_bytes(key));
    // Four vectors a turn keep both load ports busy.
    let (blocks, rest) = bytes.as_chunks_mut::<128>();
    for block in blocks {
        let (lanes, _) = block.as_chunks_mut::<32>();
        for lane in lanes {
            xor_32(lane, mask);
        }
    }
    let (lanes, rest) = rest.as_chunks_mut::<32>();
    for lane in lanes {
        xor_32(lane, mask);
    }
    portable::xor_mask(rest, key, 0);
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor_32(lane: &mut [u8; 32], mask: __m256i) {
    let at = lane.as_mut_ptr().cast::<__m256i>();
    // SAFETY: `at` comes from a `&mut [u8; 32]`, so the 32 bytes that are read and written are
    // ours alone; the `u` forms of load and store ask for no alignment.
    unsafe { _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), mask)) }
}

pub(super) fn xor_mask_sse2(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = portable::rotated(key, offset);
    // SAFETY: SSE2 is part of the x86-64 baseline: the compiler uses it for every `f64`.
    let mask = unsafe { _mm_set1_epi32(i32::from_ne_bytes(key)) };
    let (lanes, rest) = bytes.as_chunks_mut::<16>();
    for lane in lanes {
        xor_16(lane, mask);
    }
    portable::xor_mask(rest, key, 0);
}

#[inline]
fn xor_16(lane: &mut [u8; 16], mask: __m128i) {
    let at = lane.as_mut_ptr().cast::<__m128i>();
    // SAFETY: `at` comes from a `&mut [u8; 16]`, so the 16 bytes that are read and written are
    // ours alone; the `u` forms of load and store ask for no alignment; SSE2 is baseline.
    unsafe { _mm_storeu_si128(at, _mm_xor_si128(_mm_loadu_si128(at), mask)) }
}
