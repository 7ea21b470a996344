//! Who may come in, and which shard has room: what all shards agree on at accept time.
//!
//! Not on any message's way; the only lock of the data plane is here, taken once a connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::hub::ShardIndex;
use crate::proto::http::Refusal;

/// When to come back, for those who are turned away: long enough that a crowd spreads.
const RETRY_AFTER_S: u32 = 5;

/// The answer to a peer there is no room for.
pub(super) const TRY_AGAIN: Refusal = Refusal::Unavailable { retry_after_s: RETRY_AFTER_S };

/// A shard is overloaded when it has this many connections more than the lightest one, and a
/// quarter more than that one has.
const SPREAD_CONNECTIONS_MIN: u32 = 16;

/// What all shards agree on at accept time.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_address_max: Option<usize>,
    connections: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// By shard.
    loads: Box<[AtomicU32]>,
}

impl Admission {
    /// An empty house with `shards` shards.
    #[must_use]
    pub fn new(shards: usize, connections_max: usize, per_address_max: Option<usize>) -> Self {
        Self {
            connections_max,
            per_address_max,
            connections: AtomicUsize::new(0),
            addresses: Mutex::default(),
            loads: (0..shards).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Counts a connection from `address` in.
    ///
    /// # Errors
    /// When there is no room for it; then it does not count.
    pub fn enter(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.connections.fetch_add(1, Relaxed) >= self.connections_max {
            self.connections.fetch_sub(1, Relaxed);
            return Err(TRY_AGAIN);
        }
        let Some(max) = self.per_address_max else { return Ok(()) };
        let mut addresses = self.addresses.lock().expect("nobody panics while holding it");
        let count = addresses.entry(address).or_default();
        if *count >= max {
            self.connections.fetch_sub(1, Relaxed);
            return Err(Refusal::TooManyConnections { retry_after_s: RETRY_AFTER_S });
        }
        *count += 1;
        Ok(())
    }

    /// Counts a connection from `address` out.
    pub fn leave(&self, address: IpAddr) {
        self.connections.fetch_sub(1, Relaxed);
        if self.per_address_max.is_none() {
            return;
        }
        let mut addresses = self.addresses.lock().expect("nobody panics while holding it");
        let count = addresses.get_mut(&address).expect("who leaves has entered");
        *count -= 1;
        if *count == 0 {
            addresses.remove(&address);
        }
    }

    /// Connections in the whole process.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Tells how many connections `shard` has.
    pub fn set_load(&self, shard: ShardIndex, connections: usize) {
        self.loads[usize::from(shard)].store(connections as u32, Relaxed);
    }

    /// The lightest shard, if `shard` is so much heavier that it should pass on what it accepts.
    #[must_use]
    pub fn lighter_than(&self, shard: ShardIndex) -> Option<ShardIndex> {
        let mine = self.loads[usize::from(shard)].load(Relaxed);
        let loads = self.loads.iter().map(|load| load.load(Relaxed));
        let (lightest, load) = loads.enumerate().min_by_key(|(_, load)| *load)?;
        let is_overloaded = mine > load + SPREAD_CONNECTIONS_MIN.max(load / 4);
        is_overloaded.then_some(lightest as ShardIndex)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn who_is_turned_away_does_not_count() {
        let admission = Admission::new(1, 3, Some(2));
        assert!(admission.enter(A).is_ok());
        assert!(admission.enter(A).is_ok());
        assert!(admission.enter(A).is_err(), "a third from one address");
        assert!(admission.enter(B).is_ok());
        assert!(admission.enter(B).is_err(), "a fourth in all");
        assert_eq!(admission.connections(), 3);
        for address in [A, A, B] {
            admission.leave(address);
        }
        assert_eq!(admission.connections(), 0);
        assert!(admission.addresses.lock().unwrap().is_empty());
    }

    #[test]
    fn only_a_shard_much_heavier_than_the_lightest_passes_connections_on() {
        let admission = Admission::new(3, 100, None);
        for (shard, load) in [(0, 16), (1, 3), (2, 0)] {
            admission.set_load(shard, load);
        }
        assert_eq!(admission.lighter_than(0), None);
        admission.set_load(0, 17);
        assert_eq!(admission.lighter_than(0), Some(2));
        for (shard, load) in [(0, 1_200), (1, 1_001), (2, 1_000)] {
            admission.set_load(shard, load);
        }
        assert_eq!(admission.lighter_than(0), None, "within a quarter");
        admission.set_load(0, 1_251);
        assert_eq!(admission.lighter_than(0), Some(2));
    }
}
