//! `ringcast check`: proves a configuration as the server would at its start, and stops there.

use std::io::{self, Write as _};

use super::{Check, EXIT_USAGE};
use crate::config::{Config, MemoryPlan, keys};

/// Checks, prints what was found, and says how the process should end: 0 when the
/// configuration is good, [`EXIT_USAGE`] with one line on standard error for each problem.
#[must_use]
pub fn check(arguments: Check) -> u8 {
    // A reader that went away (`| head`) wants no more of it; that is no failure.
    let mut out = io::stdout().lock();
    if arguments.example {
        let _ = out.write_all(keys::annotated(&Config::default()).as_bytes());
        return 0;
    }
    match arguments.serve.prove(Config::default()) {
        Ok(config) => {
            let _ = writeln!(out, "{}\nthe configuration is good", MemoryPlan::of(&config));
            0
        }
        Err(problems) => {
            eprintln!("{problems}");
            EXIT_USAGE
        }
    }
}
