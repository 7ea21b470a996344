//! The mask on 64-bit ARM: NEON, which is part of the architecture's baseline on Linux.

use std::arch::aarch64::{uint8x16_t, veorq_u8, vld1q_u8, vst1q_u8};

use super::portable;

pub(super) fn xor_mask_neon(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    // A vector is a multiple of the key's four bytes, so the rotated key serves to the end.
    let key = portable::rotated(key, offset);
    let mut repeated = [0; 16];
    for (byte, key) in repeated.iter_mut().zip(key.iter().cycle()) {
        *byte = *key;
    }
    // SAFETY: `repeated` is an array of exactly the 16 bytes that are read, and the load asks
    // for no alignment beyond a byte's.
    let mask = unsafe { vld1q_u8(repeated.as_ptr()) };
    // Four vectors a turn: the small in-order cores of gateways can then overlap the loads.
    let (blocks, rest) = bytes.as_chunks_mut::<64>();
    for block in blocks {
        let (lanes, _) = block.as_chunks_mut::<16>();
        for lane in lanes {
            xor_16(lane, mask);
        }
    }
    let (lanes, rest) = rest.as_chunks_mut::<16>();
    for lane in lanes {
        xor_16(lane, mask);
    }
    portable::xor_mask(rest, key, 0);
}

#[inline]
fn xor_16(lane: &mut [u8; 16], mask: uint8x16_t) {
    let at = lane.as_mut_ptr();
    // SAFETY: `at` comes from a `&mut [u8; 16]`, so the 16 bytes that are read and written are
    // ours alone; NEON loads and stores of bytes ask for no alignment beyond a byte's.
    unsafe { vst1q_u8(at, veorq_u8(vld1q_u8(at), mask)) }
}
