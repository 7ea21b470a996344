//! Seeded schedules of everything that changes how a socket is listened to, under traffic.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringcast::io::{Driver, ListenerSettings, Sent, Settings, SocketId};

use crate::Kind;
use crate::world::{Dice, World, pattern, settings};

const SEEDS: u64 = 16;
const SOCKETS: usize = 12;
const BYTES: usize = 150_000;

/// `RINGCAST_SEED=n` runs one schedule alone.
pub(crate) fn seeded_schedules_lose_double_and_reorder_nothing<K: Kind>() {
    let only = std::env::var("RINGCAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(1..SEEDS + 1, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let replay = Replay(seed);
        schedule::<K>(seed);
        std::mem::forget(replay);
    }
}

/// Says how to run a schedule again when it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        let seed = self.0;
        eprintln!("replay with: RINGCAST_SEED={seed} cargo test --test contract seeded_schedules");
    }
}

fn schedule<K: Kind>(seed: u64) {
    let mut dice = Dice::new(seed);
    let settings = Settings {
        receive_buffers: [4, 16, 64, 512][dice.below(4)],
        receive_buffer_bytes: [64, 1000, 4096][dice.below(3)],
        // Queues so small that they overflow, now and then.
        submissions: 8,
        completions: [16, 2048][dice.below(2)],
        ..settings()
    };
    let mut world = World::<K>::with(&settings, &ListenerSettings::default());
    let pairs: Vec<(TcpStream, SocketId)> = (0..SOCKETS).map(|_| world.pair()).collect();
    let sockets: Vec<SocketId> = pairs.iter().map(|(_, socket)| *socket).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|half| {
            let mut clients: Vec<(usize, TcpStream, Vec<u8>, usize)> = pairs
                .iter()
                .enumerate()
                .filter(|(index, _)| index % 2 == half)
                .map(|(index, (client, _))| {
                    let client = client.try_clone().expect("a twin");
                    client.set_write_timeout(Some(Duration::from_secs(20))).expect("an option");
                    (index, client, pattern(seed * 100 + index as u64, BYTES), 0)
                })
                .collect();
            let mut dice = Dice::new(seed * 7 + half as u64);
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !clients.is_empty() && !stop.load(Ordering::Relaxed) {
                    let at = dice.below(clients.len());
                    let (index, client, said, done) = &mut clients[at];
                    let most = [10, 300, 5000, 30_000][dice.below(4)];
                    let end = BYTES.min(*done + 1 + dice.below(most));
                    // Closed by the schedule, or paused for so long that its buffers are full:
                    // what was written is what counts.
                    client.set_nonblocking(true).expect("an option");
                    match client.write(&said[*done..end]) {
                        Ok(count) => *done += count,
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => *done = BYTES,
                    }
                    if *done == BYTES {
                        // Some end, some stay.
                        if *index % 3 == 0 {
                            let _ = client.shutdown(std::net::Shutdown::Write);
                        }
                        clients.swap_remove(at);
                    }
                    if dice.below(4) == 0 {
                        thread::sleep(Duration::from_micros(dice.below(300) as u64));
                    }
                }
            })
        })
        .collect();

    let mut open: Vec<(usize, SocketId)> = sockets.into_iter().enumerate().collect();
    let mut paused = [false; SOCKETS];
    let complete = |world: &World<K>, index: usize, socket: SocketId| {
        let heard = world.of(socket);
        heard.bytes.len() == BYTES && (!index.is_multiple_of(3) || heard.ended)
    };
    let start = std::time::Instant::now();
    let mut steps = 0_u64;
    loop {
        steps += 1;
        // After many steps the world heals: everyone is resumed, and everything must drain.
        let healing = steps > 3000;
        for _ in 0..dice.below(4) {
            if open.is_empty() || healing {
                break;
            }
            let at = dice.below(open.len());
            let (index, socket) = open[at];
            match dice.below(40) {
                0..16 => world.driver.quiet(socket),
                16..26 => {
                    world.pause(socket);
                    paused[index] = true;
                }
                26..39 => {
                    world.resume(socket);
                    paused[index] = false;
                }
                _ if open.len() > SOCKETS / 2 => {
                    world.close(socket);
                    open.swap_remove(at);
                }
                _ => {}
            }
        }
        if healing {
            for (index, socket) in &open {
                if std::mem::take(&mut paused[*index]) {
                    world.resume(*socket);
                }
            }
        }
        if !open.is_empty() && dice.below(2) == 0 {
            // Whom it reaches does not matter: it hears outcomes that are not its own.
            let (_, socket) = open[dice.below(open.len())];
            let outcome = world.send(socket, &[b"."]);
            assert!(!matches!(outcome, Sent::Failed(_)), "nothing broke: {outcome:?}");
        }
        world.tick(Duration::from_micros(dice.below(3) as u64 * 500));
        for (index, socket) in &open {
            let heard = &world.of(*socket).bytes;
            assert!(heard.len() <= BYTES, "socket {index}: more than was said");
            assert!(world.of(*socket).failed.is_none(), "socket {index}: nothing broke");
        }
        if open.iter().all(|(index, socket)| complete(&world, *index, *socket)) {
            break;
        }
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "seed {seed}: never drained: {:?}",
            open.iter()
                .map(|(index, socket)| (
                    *index,
                    world.of(*socket).bytes.len(),
                    world.of(*socket).ended
                ))
                .collect::<Vec<_>>()
        );
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("no panic");
    }
    for (index, socket) in open {
        let said = pattern(seed * 100 + index as u64, BYTES);
        assert!(world.of(socket).bytes == said, "socket {index}: lost, doubled or reordered");
    }
}
