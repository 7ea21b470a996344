//! What goes wrong, and how often.

/// Chances in thousandths, and sizes. The default is a world in which nothing goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// A receive takes only a part of what has arrived.
    pub receive_partial: u16,
    /// A send takes only a part of what there is room for.
    pub send_short: u16,
    /// A send takes nothing, as if the socket were full (EAGAIN, or memory short for a moment).
    pub send_full: u16,
    /// Accepting fails for want of descriptors or memory.
    pub accept_fails: u16,
    /// A socket cannot be released to another shard.
    pub release_refused: u16,
    /// There is no room for a socket that another shard released.
    pub adopt_refused: u16,
    /// A reset takes bytes with it that had arrived before.
    pub reset_discards: u16,
    /// What happened on different sockets is told in any order, and some of it later.
    pub told_late: u16,
    /// Receive buffers of a driver: what finds none waits for the next harvest.
    pub buffers: usize,
    /// Bytes of one of them.
    pub buffer_bytes: usize,
    /// Completions told in one harvest.
    pub completions_max: usize,
    /// Microseconds by which it is told late that a socket takes bytes again, at most.
    pub writable_late_us_max: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            receive_partial: 0,
            send_short: 0,
            send_full: 0,
            accept_fails: 0,
            release_refused: 0,
            adopt_refused: 0,
            reset_discards: 0,
            told_late: 0,
            buffers: 256,
            buffer_bytes: 16 * 1024,
            completions_max: crate::limits::COMPLETIONS_PER_TICK_MAX,
            writable_late_us_max: 0,
        }
    }
}

/// Whether something with a chance of `permille` happens.
pub(super) fn strikes(random: &mut fastrand::Rng, permille: u16) -> bool {
    permille > 0 && random.u16(..1000) < permille
}
