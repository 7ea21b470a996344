//! What is typed at a shell: arguments, and the commands that are not the server itself.
//!
//! Reading order: `args` (what may be typed), `check`, then `client` (a blocking client that
//! reconnects) over `link` (one connection of it), and its two users: `sub`, which keeps its
//! `subscriptions`, and `publish`.

use std::io::{self, Write as _};

mod answer;
mod args;
mod chance;
mod check;
pub mod client;
mod feed;
mod link;
mod publish;
mod serve;
mod sub;
mod subscriptions;
pub mod url;

#[cfg(test)]
mod tests;

pub use args::{Arguments, Check, Command, Flags, Format, Pub, Serve, Sub, demo_defaults};
pub use check::check;
pub use publish::publish;
pub use serve::{Feed, serve};
pub use sub::sub;

/// Says on standard error what is wrong. When that is full or gone, nobody reads it: nothing to
/// panic about, as `eprintln!` would.
fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// How a process ended whose arguments or configuration were wrong. The service manager does
/// not start it again: nothing would be different.
pub const EXIT_USAGE: u8 = 2;
