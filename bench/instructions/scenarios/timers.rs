//! The timer wheel with a crowd in it.

use std::hint::black_box;
use std::time::Duration;

use ringcast::mem::Key;
use ringcast::time::{Time, Wheel};

use super::Scenarios;
use crate::meter::Meter;

const TIMERS: u32 = 100_000;
const DUE: u32 = 1_000;

pub(super) const ALL: Scenarios = &[
    ("time: a tick with 100,000 timers, nothing due", "tick", |meter| tick(meter, 0)),
    ("time: a tick with 100,000 timers, 1,000 due", "timer", |meter| tick(meter, DUE)),
    ("time: set a timer among 100,000", "timer", set),
];

/// Timers over the ping intervals of their clients, the first of them at a tenth less than 25 s.
fn crowd(count: u32) -> Wheel {
    let mut wheel = Wheel::new();
    for index in 0..count {
        let spread = Duration::from_millis(u64::from(index) * 5_000 / u64::from(count));
        wheel.set(Key::new(index, 0), Time::START + Duration::from_millis(22_500) + spread);
    }
    wheel
}

/// What a tick of 16 ms asks of the wheel: when is the next one, and who is due.
fn tick(meter: &mut Meter, count_due: u32) {
    const TICKS: u64 = 10;
    let mut wheel = crowd(TIMERS - count_due);
    for index in TIMERS - count_due..TIMERS {
        wheel.set(Key::new(index, 0), Time::START + Duration::from_millis(1_600));
    }
    let mut now = Time::START + Duration::from_millis(1_600 - 16 * TICKS);
    let mut due = Vec::with_capacity(count_due as usize);
    wheel.expire(now, &mut due);
    assert!(due.is_empty());
    let units = if count_due == 0 { TICKS } else { u64::from(count_due) };
    meter.count(units, || {
        for _ in 0..TICKS {
            now = now + Duration::from_millis(16);
            black_box(wheel.next());
            wheel.expire(now, &mut due);
        }
    });
    assert_eq!(due.len(), count_due as usize);
}

fn set(meter: &mut Meter) {
    let mut wheel = crowd(TIMERS);
    let mut again = || {
        for index in 0..DUE {
            wheel.set(Key::new(index * 97, 0), Time::START + Duration::from_millis(5_000));
        }
    };
    again();
    meter.count(u64::from(DUE), again);
    assert_eq!(wheel.len(), TIMERS as usize);
}
