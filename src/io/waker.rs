//! Waking a driver out of its rest: one atomic word, and an eventfd only for the sleeping.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The driver is busy and nobody has called.
const BUSY: u32 = 0;
/// Somebody has called and the driver has not heard it yet.
const CALLED: u32 = 1;
/// The driver rests, or is about to: a caller must ring the bell.
const RESTING: u32 = 2;

/// Wakes one driver from any thread.
///
/// Waking a busy driver, or one that was called already, is one atomic instruction; only a
/// resting one costs a system call.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    state: AtomicU32,
    eventfd: EventFd,
}

impl Waker {
    /// A waker for a driver that is busy.
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(Bell { state: AtomicU32::new(BUSY), eventfd })))
    }

    /// Makes the driver report [`Completion::Woken`](super::Completion::Woken) soon, and end its
    /// rest for it. What the caller wrote before is visible to whoever sees that completion.
    pub fn wake(&self) {
        // Always a read-modify-write, also when the state reads CALLED already: what this
        // thread queued must become visible to the driver's next read-modify-write.
        if self.0.state.swap(CALLED, Ordering::AcqRel) == RESTING {
            // The counter cannot overflow: one write at most for every rest of the driver.
            let _ = self.0.eventfd.write(1);
        }
    }

    /// What the driver watches: every write to it is one event. Nobody reads it, so that an
    /// edge-triggered watch (epoll) and a multishot poll (io_uring) serve without a system call.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }

    /// Announces a rest. False when somebody has called since the last harvest: whoever calls
    /// before this instruction is heard by it, whoever calls after it rings the bell.
    pub(super) fn may_rest(&self) -> bool {
        self.0.state.compare_exchange(BUSY, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether somebody has called and the driver has not heard it yet.
    pub(super) fn is_called(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == CALLED
    }

    /// Ends the rest, if there was one, and says whether somebody has called.
    pub(super) fn take_call(&self) -> bool {
        // A call that this glance misses is found by the next harvest before it rests.
        self.0.state.load(Ordering::Relaxed) != BUSY
            && self.0.state.swap(BUSY, Ordering::AcqRel) == CALLED
    }
}

#[cfg(test)]
mod tests {
    use super::Waker;

    #[test]
    fn a_busy_driver_is_woken_without_ringing_the_bell() {
        let waker = Waker::new().expect("an eventfd");
        waker.wake();
        waker.wake();
        assert!(waker.0.eventfd.read().is_err(), "nothing was written");
        assert!(!waker.may_rest(), "a call forbids the rest");
        assert!(waker.take_call());
        assert!(!waker.take_call(), "calls are told once");
    }

    #[test]
    fn a_resting_driver_hears_the_bell_once() {
        let waker = Waker::new().expect("an eventfd");
        assert!(waker.may_rest());
        waker.wake();
        waker.wake();
        assert_eq!(waker.0.eventfd.read(), Ok(1));
        assert!(waker.take_call());
        assert!(waker.may_rest());
        assert!(!waker.take_call());
    }
}
