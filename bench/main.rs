//! The load generator: starts each server under test itself, loads it from another core, reads
//! what it cost from the process's own accounting, and says so beside a floor and beside peers.
//!
//! Reading order: `scenarios` (what is asked), `generator` (who asks), `servers` (who answers),
//! `floor` and `peers` (what ringcast is held against), `report` (what is printed).
//! `README.md` beside this file tells the method and every command.

mod floor;
mod generator;
mod hold;
mod machine;
#[cfg(feature = "peers")]
mod peers;
mod report;
mod scenarios;
mod servers;
mod suite;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use scenarios::{Load, Scenario};
use servers::Server;

/// The same allocator as the product's, so that no peer loses for want of a good one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "ringcast-bench", version, about = "Honest load for ringcast and its rivals")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one scenario against several servers in turn (A B C, A B C, ...).
    Run {
        /// What to ask of the servers.
        #[arg(value_enum)]
        scenario: Scenario,
        #[command(flatten)]
        common: Common,
        /// Length of the measured part of a run, in seconds.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Connections held by the idle scenario.
        #[arg(long, default_value_t = 15_000)]
        idle_connections: usize,
        /// Subscribers of the fan-out scenarios.
        #[arg(long, default_value_t = 1_000)]
        subscribers: usize,
        /// Messages per second of the fan-out at a fixed rate.
        #[arg(long, default_value_t = 100)]
        rate: u64,
        /// Lets the generator sleep in the kernel between events instead of polling: then every
        /// server is charged for waking it.
        #[arg(long)]
        sleep: bool,
    },
    /// Runs every scenario against every server and checks what ringcast promises.
    Suite {
        #[command(flatten)]
        common: Common,
        /// Short runs and fewer of them: a look, not a claim.
        #[arg(long)]
        quick: bool,
        /// Only these scenarios.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Scenario>,
    },
    /// Holds very many subscribed connections, answers pings, and ends with one broadcast.
    Hold(hold::Arguments),
    /// One part of `hold`, in a process of its own.
    #[command(hide = true)]
    HoldPart(hold::PartArguments),
    /// The floor server.
    #[command(hide = true)]
    Floor(floor::Arguments),
    /// A rival server.
    #[cfg(feature = "peers")]
    #[command(hide = true)]
    Peer(peers::Arguments),
}

#[derive(Args)]
struct Common {
    /// The servers, in the order of the table. Default: every one that can be started.
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Server>,
    /// Rounds; each round starts every server once.
    #[arg(long)]
    runs: Option<usize>,
    /// The `ringcast` program. Default: the one beside this program.
    #[arg(long)]
    server_binary: Option<PathBuf>,
    /// Appends the tables to this file as well.
    #[arg(long)]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("ringcast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command; `Ok(false)` says that it ran and that something promised was missed.
fn dispatch(command: Command) -> io::Result<bool> {
    match command {
        Command::Run { scenario, common, seconds, idle_connections, subscribers, rate, sleep } => {
            let load = Load {
                seconds,
                warm_up_seconds: 0.5_f64.min(seconds),
                idle_connections,
                subscribers,
                rate,
                sleep,
            };
            suite::run(&[scenario], &common, load, common.runs.unwrap_or(5), false)
        }
        Command::Suite { common, quick, only } => {
            let scenarios = if only.is_empty() { Scenario::all() } else { only };
            let load = if quick { Load::quick() } else { Load::full() };
            let runs = common.runs.unwrap_or(if quick { 3 } else { 5 });
            suite::run(&scenarios, &common, load, runs, true)
        }
        Command::Hold(arguments) => hold::run(&arguments),
        Command::HoldPart(arguments) => hold::part(&arguments).map(|()| true),
        Command::Floor(arguments) => floor::serve(&arguments).map(|()| true),
        #[cfg(feature = "peers")]
        Command::Peer(arguments) => peers::serve(&arguments).map(|()| true),
    }
}
