//! What is said at the end, and when a world broke a promise.

use std::panic;
use std::process::{Command, exit};
use std::time::Duration;

use crate::reached::Reached;
use crate::world::Outcome;
use crate::{Arguments, LINK, SEED};

/// Lines of the connection concerned that a failure shows.
const LINES_SHOWN: usize = 60;

/// All worlds of a run together.
#[derive(Debug, Default)]
pub struct Totals {
    pub worlds: u64,
    /// Of all of them, in whatever order they were lived through.
    digest: u64,
    events: u64,
    ticks: u64,
    published: u64,
    delivered: u64,
    lived: Duration,
    pub reached: Reached,
}

impl Totals {
    pub fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.worlds += 1;
        self.digest ^= outcome.digest.rotate_left((seed % 64) as u32);
        self.events += outcome.events;
        self.ticks += outcome.ticks;
        self.published += outcome.published;
        self.delivered += outcome.delivered;
        self.lived += outcome.lived;
        self.reached.merge(&outcome.reached);
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.worlds += other.worlds;
        self.digest ^= other.digest;
        self.events += other.events;
        self.ticks += other.ticks;
        self.published += other.published;
        self.delivered += other.delivered;
        self.lived += other.lived;
        self.reached.merge(&other.reached);
        self
    }

    pub fn print(&self, took: Duration) {
        println!("{}", self.reached);
        println!(
            "{} worlds in {:.1} s: {} ticks, {} events, {} published, {} delivered",
            self.worlds,
            took.as_secs_f64(),
            self.ticks,
            self.events,
            self.published,
            self.delivered
        );
        println!(
            "{:.1} simulated hours, {:.2} of them in a second",
            hours(self.lived),
            hours(self.lived) / took.as_secs_f64()
        );
        println!("digest {:016x}", self.digest);
    }
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3_600.0
}

/// One world in a line.
pub fn line(outcome: &Outcome) -> String {
    format!(
        "digest {:016x}, {} events, {} ticks, {} published, {} delivered, {:.1} s",
        outcome.digest,
        outcome.events,
        outcome.ticks,
        outcome.published,
        outcome.delivered,
        outcome.lived.as_secs_f64()
    )
}

/// A broken promise is a panic, wherever it is noticed: it ends the process with the seed, the
/// command that replays it, a smaller world with the same failure if there is one, and what
/// happened last on the connection concerned.
pub fn on_failure(arguments: &Arguments) {
    let arguments = arguments.clone();
    panic::set_hook(Box::new(move |panic| {
        let seed = SEED.get();
        let said = message(panic);
        let link = LINK.get().map(|link| format!("{link:?}"));
        println!("FAILED seed {seed}: {said}");
        println!("concerning {}", link.as_deref().unwrap_or("no connection in particular"));
        if arguments.seed.is_none() && !arguments.brief {
            let smallest = shrink(seed, &said);
            let shown = smallest.join(" ");
            let profile = if cfg!(debug_assertions) { "--profile proof" } else { "--release" };
            println!("replay: cargo run {profile} --bin ringcast-sim -- {shown} --trace");
            let trace = replay(&smallest, true).unwrap_or_default();
            let concerned = concerned(&trace).or(link);
            let lines = trace.lines().filter(|line| {
                concerned.as_ref().is_none_or(|link| line.contains(&format!("{link} ")))
                    || line.contains(" world ")
            });
            let lines: Vec<&str> = lines.collect();
            for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
                println!("{line}");
            }
            println!("0 passed, 1 failed");
        }
        exit(1);
    }));
}

fn message(panic: &panic::PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    format!("{} ({place})", text.replace('\n', " "))
}

/// Which connection the failure in `trace` was about.
fn concerned(trace: &str) -> Option<String> {
    let line = trace.lines().rev().find_map(|line| line.strip_prefix("concerning "))?;
    line.starts_with("LinkId").then(|| line.to_owned())
}

/// The arguments of the smallest world found that fails in the same place.
fn shrink(seed: u64, said: &str) -> Vec<String> {
    let place = |said: &str| said.rsplit(" (").next().map(str::to_owned);
    let fails = |arguments: &[String]| {
        let output = replay(arguments, false).unwrap_or_default();
        let failed = output.lines().find(|line| line.starts_with("FAILED"));
        failed.is_some_and(|line| place(line) == place(said))
    };
    let mut smallest = vec!["--seed".to_owned(), seed.to_string()];
    for flag in ["--calm", "--faultless"] {
        let smaller = [&smallest[..], &[flag.to_owned()]].concat();
        if fails(&smaller) {
            smallest = smaller;
        }
    }
    for (flag, values) in
        [("--peers", [1, 2, 3, 5, 8, 16]), ("--life", [100, 500, 2_000, 5_000, 15_000, 40_000])]
    {
        let smaller = values
            .iter()
            .map(|value| [&smallest[..], &[flag.to_owned(), value.to_string()]].concat())
            .find(|arguments| fails(arguments));
        smallest = smaller.unwrap_or(smallest);
    }
    smallest
}

/// Lives through one world in a process of its own, because a failure ends it.
fn replay(arguments: &[String], trace: bool) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(arguments);
    if trace {
        command.arg("--trace");
    }
    Some(String::from_utf8_lossy(&command.output().ok()?.stdout).into_owned())
}
