//! The `ringcast` program: arguments, then the command.

use std::process::ExitCode;

use clap::Parser as _;
use ringcast::cli::{self, Arguments, Command, Feed};
use ringcast::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(match Arguments::parse().command() {
        Command::Serve(serve) => cli::serve(serve.prove(Config::default()), Feed::Off),
        Command::Demo(serve) => cli::serve(serve.prove(cli::demo_defaults()), Feed::On),
        Command::Sub(sub) => cli::sub(sub),
        Command::Pub(publish) => cli::publish(publish),
        Command::Check(check) => cli::check(check),
    })
}
