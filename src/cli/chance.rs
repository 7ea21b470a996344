//! Chance from the operating system, drawn in blocks.

/// Random bytes.
#[derive(Debug)]
pub(super) struct Chance {
    pool: [u8; 256],
    used: usize,
}

impl Default for Chance {
    fn default() -> Self {
        let pool = [0; 256];
        Self { used: pool.len(), pool }
    }
}

impl Chance {
    /// The next bytes. RFC 6455 5.3: masks must not be predictable, so they come from the kernel.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > self.pool.len() {
            getrandom::fill(&mut self.pool).expect("Linux has random bytes for everybody");
            self.used = 0;
        }
        let mut drawn = [0; N];
        drawn.copy_from_slice(&self.pool[self.used..self.used + N]);
        self.used += N;
        drawn
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        f64::from(u32::from_ne_bytes(self.bytes())) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_is_drawn_twice_and_the_pool_refills() {
        let mut chance = Chance::default();
        let drawn: std::collections::HashSet<[u8; 16]> = (0..100).map(|_| chance.bytes()).collect();
        assert_eq!(drawn.len(), 100);
        assert!((0.0..=1.0).contains(&chance.share()));
    }
}
