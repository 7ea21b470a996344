//! Wake-ups from other threads, and rests that end by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringcast::io::{Completion, Driver};

use crate::Kind;
use crate::world::{World, settings};

pub(crate) fn ten_thousand_wakes_from_four_threads_are_never_lost<K: Kind>() {
    const THREADS: usize = 4;
    const WAKES: usize = 2500;
    let mut world = World::<K>::without_listener(&settings());
    let (post, letters) = mpsc::sync_channel::<usize>(THREADS);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let waker = world.driver.waker();
            let post = post.clone();
            thread::spawn(move || {
                for wake in 0..WAKES {
                    // The mailbox is small: a letter that nobody is woken for stops everything.
                    post.send(wake).expect("the reader lives");
                    waker.wake();
                    if (wake + thread) % 50 == 0 {
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        })
        .collect();
    let mut heard = 0;
    let mut completions = Vec::new();
    let mut woken = 0;
    while heard < THREADS * WAKES {
        // For ever: only a wake ends it. Letters are heard after every harvest.
        world.driver.harvest(None, &mut completions).expect("the driver works");
        for completion in completions.drain(..) {
            assert!(matches!(completion, Completion::Woken), "{completion:?}");
            woken += 1;
        }
        heard += letters.try_iter().count();
    }
    assert!(woken > 0);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

pub(crate) fn a_wake_ends_an_endless_rest_every_time<K: Kind>() {
    const TURNS: usize = 2000;
    let mut world = World::<K>::without_listener(&settings());
    let waker = world.driver.waker();
    let turn = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&turn);
    // Each waits for the other, so that every single wake meets a driver that is about to rest,
    // resting, or just past it.
    let other = thread::spawn(move || {
        for wake in 0..TURNS {
            while theirs.load(Ordering::Acquire) < 2 * wake {
                if wake % 4 == 0 {
                    thread::yield_now();
                }
            }
            if wake % 16 == 0 {
                thread::sleep(Duration::from_micros(100));
            }
            theirs.fetch_add(1, Ordering::Release);
            waker.wake();
        }
    });
    let mut completions = Vec::new();
    for wake in 0..TURNS {
        loop {
            completions.clear();
            world.driver.harvest(None, &mut completions).expect("the driver works");
            if turn.load(Ordering::Acquire) == 2 * wake + 1
                && completions.iter().any(|one| matches!(one, Completion::Woken))
            {
                break;
            }
        }
        turn.fetch_add(1, Ordering::Release);
    }
    other.join().expect("no panic");
}

pub(crate) fn a_rest_ends_in_time<K: Kind>() {
    let mut world = World::<K>::new();
    let mut completions = Vec::new();
    world.tick(Duration::ZERO);
    for rest in [1, 20, 100].map(Duration::from_millis) {
        let start = Instant::now();
        let mut early = 0;
        while start.elapsed() < rest {
            let left = rest - start.elapsed();
            world.driver.harvest(Some(left), &mut completions).expect("the driver works");
            early += 1;
        }
        assert!(completions.is_empty());
        assert!(early < 20, "a rest is a rest ({early} returns in {rest:?})");
        assert!(start.elapsed() < rest + Duration::from_secs(5), "it overslept");
    }
    // Zero does not wait.
    let start = Instant::now();
    for _ in 0..100 {
        world.driver.harvest(Some(Duration::ZERO), &mut completions).expect("it works");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    // A socket that is full or idle is no reason not to rest.
    let (_client, _socket) = world.pair();
    world.idle(Duration::from_millis(10));
    let start = Instant::now();
    let mut returns = 0;
    while start.elapsed() < Duration::from_millis(50) {
        world.tick(Duration::from_millis(50));
        returns += 1;
    }
    assert!(returns < 20, "an idle socket wakes nobody ({returns} returns)");
}
