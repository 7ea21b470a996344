//! What is typed at a shell: arguments, and the commands that are not the server itself.
//!
//! Reading order: `args` (what may be typed), `check`, then `client` (a blocking client that
//! reconnects) and its two users, `sub` and `pub`.

mod args;
mod check;

pub use args::{Arguments, Check, Command, Flags, Pub, Serve, Sub, demo_defaults};
pub use check::check;

/// How a process ended whose arguments or configuration were wrong. The service manager does
/// not start it again: nothing would be different.
pub const EXIT_USAGE: u8 = 2;
