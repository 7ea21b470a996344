//! ringcast in simulated worlds: shards, connections, hubs, outboxes and timers as they ship, on a
//! network, a clock and people that follow from a seed.
//!
//!     cargo run --release --bin ringcast-sim -- --seeds 10000      # many worlds, then what they reached
//!     cargo run --release --bin ringcast-sim -- --seed 17 --trace  # one of them, event by event
//!
//! With `--profile proof` instead of `--release` the server asserts, too, what must hold inside of
//! it. `mutants.toml` lists deliberate bugs that the worlds have to find (`tests/mutants`).
//!
//! Reading order: `plan` (what a seed decides), `world` (time and phases), `peer` (people), `account`
//! and `ledger` (what must hold, with `roll` of who is where), `reached` (where the worlds have been), `reader` and `speech`
//! (the protocol, written down a second time).

#![expect(unreachable_pub, reason = "in a binary everything is, and `pub` reads better")]

mod account;
mod ledger;
mod listener;
mod peer;
mod plan;
mod reached;
mod reader;
mod report;
mod roll;
mod speech;
mod world;

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use clap::Parser;
use ringcast::io::sim::LinkId;

use plan::Plan;
use report::Totals;
use world::{Outcome, World};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lives through simulated worlds and fails with the first that breaks a promise.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// How many worlds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The seed of the first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// One world only.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// How many worlds at a time; as many as there are cores unless told otherwise.
    #[arg(long)]
    jobs: Option<usize>,
    /// Fails when a situation of the table was never reached.
    #[arg(long)]
    everywhere: bool,
    /// Says what failed and no more: no smaller world, no events.
    #[arg(long)]
    brief: bool,
    /// Fewer people than the seed decides.
    #[arg(long)]
    peers: Option<u32>,
    /// A shorter life, in milliseconds, than the seed decides.
    #[arg(long)]
    life: Option<u64>,
    /// Without faults of the drivers.
    #[arg(long)]
    faultless: bool,
    /// Without stalls, jumps of the clock and outages.
    #[arg(long)]
    calm: bool,
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
    static LINK: Cell<Option<LinkId>> = const { Cell::new(None) };
}

/// Says whose connection is being looked at, for the report of a failure.
fn concerning(link: Option<LinkId>) {
    LINK.set(link);
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    report::on_failure(&arguments);
    if let Some(seed) = arguments.seed {
        let outcome = live(&arguments, seed);
        println!("seed {seed}: {}", report::line(&outcome));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let jobs = arguments.jobs.or_else(|| thread::available_parallelism().ok().map(usize::from));
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + arguments.seeds;
    let totals: Totals = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.unwrap_or(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut totals = Totals::default();
                    loop {
                        let seed = next.fetch_add(1, Relaxed);
                        if seed >= end {
                            return totals;
                        }
                        totals.add(seed, &live(&arguments, seed));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a failure has ended the process"))
            .fold(Totals::default(), Totals::merge)
    });
    totals.print(started.elapsed());
    let missing = totals.reached.missing();
    if arguments.everywhere && !missing.is_empty() {
        println!("never reached: {}", missing.join("; "));
        println!("{} passed, {} failed", totals.worlds, missing.len());
        return ExitCode::FAILURE;
    }
    println!("{} passed, 0 failed", totals.worlds);
    ExitCode::SUCCESS
}

/// Lives through the world of `seed`.
fn live(arguments: &Arguments, seed: u64) -> Outcome {
    SEED.set(seed);
    let mut plan = Plan::draw(seed);
    if let Some(peers) = arguments.peers {
        plan.peers = plan.peers.min(peers).max(1);
    }
    if let Some(life) = arguments.life {
        plan.life_us = plan.life_us.min(life * 1_000);
    }
    if arguments.faultless {
        plan.faults = Default::default();
    }
    if arguments.calm {
        plan.weather =
            plan::Weather { turn_us_max: plan.weather.turn_us_max, ..Default::default() };
    }
    if arguments.trace {
        println!("{plan:#?}");
    }
    World::new(plan, seed, arguments.trace).run()
}
