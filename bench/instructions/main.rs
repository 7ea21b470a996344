//! The gate on the hot paths: how many instructions each takes, held against a committed table.
//!
//! Instructions are counted by valgrind's callgrind, because a count is the same on a busy machine
//! as on a quiet one, where a time is not. What a count does not see: cache misses, branch misses,
//! the kernel. `ringcast-bench` measures those.
//!
//! Reading order: `scenarios` (what is counted), `meter` (what of it), `callgrind` (who counts),
//! `baseline` (what it may be). `../README.md` tells the method and every command.
#![forbid(unsafe_code)]

mod baseline;
mod callgrind;
mod meter;
mod scenarios;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use baseline::{Baseline, Head};

/// The product's allocator, because its instructions are part of every path.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The committed table.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/instructions/baseline.txt");

/// How to accept new counts, told wherever they are not the old ones.
const UPDATE: &str =
    "cargo run --profile ci --features instructions --bin ringcast-instructions -- update";

#[derive(Parser)]
#[command(name = "ringcast-instructions", about = "Counts the instructions of the hot paths")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, and fails where a count is not the committed one (the default).
    Check,
    /// Counts, and commits to the result: rewrites the table.
    Update,
    /// What runs under valgrind.
    #[command(hide = true)]
    Measure,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command.unwrap_or(Command::Check) {
        Command::Check => check(),
        Command::Update => update().map(|()| true),
        Command::Measure => {
            scenarios::run_all();
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringcast-instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> io::Result<bool> {
    let text = std::fs::read_to_string(BASELINE).map_err(|error| {
        io::Error::other(format!("{BASELINE}: {error}; make it with: {UPDATE}"))
    })?;
    let baseline = Baseline::parse(&text).map_err(io::Error::other)?;
    let (head, counts) = (Head::of_this_machine()?, callgrind::count()?);
    let verdicts = baseline.judge(&counts);
    for verdict in &verdicts {
        println!("{verdict}");
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.is_good()).count();
    if failed > 0 {
        println!();
        for difference in baseline.head.differences(&head) {
            println!("not the baseline's: {difference}");
        }
        println!(
            "A count that is meant to be another one is accepted, in the same commit, by:\n  {UPDATE}"
        );
        println!(
            "Where the instructions are: callgrind_annotate --inclusive=yes --threshold=100 {}/NAME",
            callgrind::shown_folder()
        );
    }
    println!("{} passed, {failed} failed", verdicts.len() - failed);
    Ok(failed == 0)
}

fn update() -> io::Result<()> {
    let baseline = Baseline { head: Head::of_this_machine()?, counts: callgrind::count()? };
    let text = baseline.to_string();
    std::fs::write(Path::new(BASELINE), &text)?;
    print!("{text}");
    Ok(())
}
