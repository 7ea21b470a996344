//! What is counted: each scenario prepares its world, does its work once outside of the count (so
//! that buffers, pages and choices by CPU are there), and then under the meter.
//!
//! Nothing here reads a clock, draws chance without a seed, or starts a thread: the same program
//! counts the same.

mod frames;
mod hub;
mod requests;
mod shard;
mod sink;
mod timers;

use crate::meter::Meter;

/// One line of the table.
pub(crate) struct Scenario {
    /// What it is called; it begins with the module whose work it is.
    name: &'static str,
    /// What one unit of its work is.
    unit: &'static str,
    run: fn(&mut Meter),
}

/// Every scenario, in the order of a message's journey.
fn all() -> impl Iterator<Item = Scenario> {
    [frames::ALL, requests::ALL, hub::ALL, shard::ALL, timers::ALL]
        .into_iter()
        .flatten()
        .map(|(name, unit, run)| Scenario { name, unit, run: *run })
}

/// A module's scenarios: name, unit, work.
type Scenarios = &'static [(&'static str, &'static str, fn(&mut Meter))];

/// Runs all scenarios and tells what they were.
pub(crate) fn run_all() {
    for Scenario { name, unit, run } in all() {
        let mut meter = Meter::default();
        run(&mut meter);
        println!("{name}\t{unit}\t{}", meter.finish());
    }
}
