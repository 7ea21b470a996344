//! `ringcast check`: proves a configuration as the server would at its start, and stops there.

use std::io::{self, Write as _};

use super::{Check, EXIT_USAGE, complain};
use crate::config::{Config, MemoryPlan, example};

/// Checks, prints what was found, and says how the process should end: 0 when the
/// configuration is good, [`EXIT_USAGE`] with one line on standard error for each problem.
#[must_use]
pub fn check(arguments: Check) -> u8 {
    if arguments.example {
        return print(&example::annotated(&Config::default()));
    }
    match arguments.serve.prove(Config::default()) {
        Ok(config) => print(&format!("{}\nthe configuration is good\n", MemoryPlan::of(&config))),
        Err(problems) => {
            complain(&problems);
            EXIT_USAGE
        }
    }
}

/// Prints, and returns the exit status.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => 0,
        // A reader that went away (`| head`) wants no more of it; that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            complain(&format_args!("cannot write to standard output: {error}"));
            1
        }
    }
}
