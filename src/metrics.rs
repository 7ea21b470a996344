//! Numbers that one shard writes and anybody may read: no lock, no read-modify-write.
//!
//! This page knows no page format; `admin` turns a set of these into one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer. Adding is a load and a store, not a locked instruction.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds `amount`. Only the owning shard calls this.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Takes `amount` away (gauges). Only the owning shard calls this.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Sets the number. Only the owning shard calls this.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds (inclusive) of the buckets of [`Depths`]; the last bucket has none.
pub const DEPTH_BOUNDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];

/// A histogram of how many messages waited somewhere at each of many moments.
#[derive(Debug, Default)]
pub struct Depths {
    buckets: [Number; DEPTH_BOUNDS.len() + 1],
    sum: Number,
}

impl Depths {
    /// Counts one observation.
    #[inline]
    pub fn observe(&self, depth: u64) {
        let bucket = DEPTH_BOUNDS.iter().position(|bound| depth <= *bound);
        self.buckets[bucket.unwrap_or(DEPTH_BOUNDS.len())].add(1);
        self.sum.add(depth);
    }

    /// The count of each bucket (not cumulated) and the sum of all observations.
    #[must_use]
    pub fn read(&self) -> ([u64; DEPTH_BOUNDS.len() + 1], u64) {
        (std::array::from_fn(|index| self.buckets[index].get()), self.sum.get())
    }
}
