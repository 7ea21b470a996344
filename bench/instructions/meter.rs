//! What of a scenario is counted: only what runs inside of [`measured`].

use std::hint::black_box;

/// What callgrind switches its counting on and off at: a pattern over demangled names, because
/// the compiler may append to a name.
pub(crate) const MEASURED: &str = "ringcast_instructions::meter::measured*";

/// What callgrind writes down a scenario's counts at.
pub(crate) const FINISHED: &str = "ringcast_instructions::meter::finished*";

/// Counts the units of a scenario's work, while callgrind counts its instructions.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    units: u64,
}

impl Meter {
    /// Does `work`, which is `units` units of it, under the eye of callgrind. The rest of the
    /// scenario is not counted.
    pub(crate) fn count(&mut self, units: u64, mut work: impl FnMut()) {
        self.units += units;
        measured(&mut work);
    }

    /// Ends the scenario and says how many units were done.
    pub(crate) fn finish(self) -> u64 {
        finished(self.units)
    }
}

/// Behind a reference to a closure, so that there is one function of this name.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
    // What follows a call keeps it from becoming a jump, after which callgrind would not know
    // when this function ends.
    black_box(());
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[inline(never)]
fn finished(units: u64) -> u64 {
    black_box(units)
}
