//! Alternating rounds over servers, progress, tables, and what ringcast promises about them.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::Table;
use crate::scenarios::{Load, Outcome, Scenario};
use crate::servers::{self, Running, Server};
use crate::{Common, machine};

/// Runs scenarios and prints a table after each. With `judge`, ends with the promises; returns
/// whether all that could be judged were kept.
pub(crate) fn run(
    scenarios: &[Scenario],
    common: &Common,
    load: Load,
    runs: usize,
    judge: bool,
) -> io::Result<bool> {
    if runs == 0 || load.seconds <= 0.0 || load.rate == 0 || load.subscribers == 0 {
        return Err(io::Error::other("runs, seconds, rate and subscribers start at 1"));
    }
    machine::raise_descriptor_limit()?;
    machine::pin_to(machine::GENERATOR_CPU)?;
    let binary = match &common.server_binary {
        Some(path) => path.clone(),
        None => servers::binary_beside()?,
    };
    let chosen: Vec<Server> = if common.servers.is_empty() {
        let all = Server::all().into_iter();
        all.filter(|server| server.is_available(&binary)).collect()
    } else {
        common.servers.clone()
    };
    // Found now rather than by a warning in every table.
    if let Some(server) = chosen.iter().find(|server| !server.is_available(&binary)) {
        let cure = if server.is_ringcast() {
            format!("{} is missing: build it, or name it with --server-binary", binary.display())
        } else {
            "build with --features peers".to_owned()
        };
        return Err(io::Error::other(format!("{} cannot be started: {cure}", server.name())));
    }
    let suited = |scenario: &Scenario| chosen.iter().filter(|s| scenario.suits(**s)).count();
    let total: usize = scenarios.iter().map(|scenario| suited(scenario) * runs).sum();
    let bar = ProgressBar::new(total as u64);
    let style = "[{elapsed_precise}] {wide_bar} {pos}/{len} {msg}";
    bar.set_style(ProgressStyle::with_template(style).map_err(io::Error::other)?);

    let mut report = heading(&load, runs);
    bar.suspend(|| println!("{report}"));
    let mut tables = Vec::new();
    for scenario in scenarios {
        let table = compare(*scenario, &chosen, &binary, &load, runs, &bar);
        let text = table.markdown();
        bar.suspend(|| println!("{text}"));
        report.push_str(&text);
        tables.push(table);
    }
    bar.finish_and_clear();

    let mut kept = true;
    if judge {
        let (text, all) = verdicts(&tables);
        println!("{text}");
        report.push_str(&text);
        kept = all;
    }
    if let Some(path) = &common.output {
        OpenOptions::new().create(true).append(true).open(path)?.write_all(report.as_bytes())?;
    }
    Ok(kept)
}

/// Rounds A B C, A B C, ...: what drifts on a machine drifts for all. A server that fails is
/// dropped from the scenario and named, and the others go on.
fn compare(
    scenario: Scenario,
    chosen: &[Server],
    binary: &std::path::Path,
    load: &Load,
    runs: usize,
    bar: &ProgressBar,
) -> Table {
    let mut servers: Vec<Server> =
        chosen.iter().copied().filter(|server| scenario.suits(*server)).collect();
    let mut figures: Vec<Vec<Vec<f64>>> = vec![Vec::new(); servers.len()];
    let mut warnings = Vec::new();
    let mut disturbance = Disturbance::default();
    for round in 1..=runs {
        let mut index = 0;
        while index < servers.len() {
            let server = servers[index];
            bar.set_message(format!("{} round {round} {}", scenario.name(), server.name()));
            let outcome =
                Running::start(server, binary, scenario.floor_sizes(), scenario.environment())
                    .and_then(|running| run_once(scenario, &running, load, &mut disturbance));
            bar.inc(1);
            match outcome {
                Ok(outcome) => {
                    for warning in outcome.warnings {
                        warnings.push(format!("{}, round {round}: {warning}", server.name()));
                    }
                    for (column, figure) in scenario.columns().iter().zip(&outcome.figures) {
                        if column.compare && !figure.is_finite() {
                            let name = server.name();
                            warnings.push(format!("{name}, round {round}: no {}", column.name));
                        }
                    }
                    figures[index].push(outcome.figures);
                    index += 1;
                }
                Err(error) => {
                    warnings.push(format!("{}, round {round}, gave up: {error}", server.name()));
                    bar.inc((runs - round) as u64);
                    servers.remove(index);
                    figures.remove(index);
                }
            }
        }
    }
    warnings.extend(disturbance.warning());
    Table { scenario, load: scenario.describe(load), servers, figures, warnings }
}

/// One run, and how much other work disturbed it.
fn run_once(
    scenario: Scenario,
    running: &Running,
    load: &Load,
    disturbance: &mut Disturbance,
) -> io::Result<Outcome> {
    let own = std::process::id();
    let waited =
        || Ok::<_, io::Error>((machine::waited_ns(running.pid())?, machine::waited_ns(own)?));
    let before = waited()?;
    let started = Instant::now();
    let outcome = scenario.run(running, load).map_err(|error| {
        io::Error::other(format!("{error}; its log ends: {:?}", running.last_words()))
    })?;
    let after = waited()?;
    let elapsed_ns = started.elapsed().as_nanos() as f64;
    disturbance.server = disturbance.server.max((after.0 - before.0) as f64 / elapsed_ns);
    disturbance.generator = disturbance.generator.max((after.1 - before.1) as f64 / elapsed_ns);
    Ok(outcome)
}

/// The largest share of a run in which one side was ready and other work had its core.
#[derive(Default)]
struct Disturbance {
    server: f64,
    generator: f64,
}

impl Disturbance {
    /// Says so when it was enough to move figures: caches are cold after every turn of another.
    fn warning(&self) -> Option<String> {
        const TOLERABLE: f64 = 0.03;
        let Self { server, generator } = self;
        (server.max(*generator) > TOLERABLE).then(|| {
            format!(
                "the machine was not quiet: in the worst run the server waited for its core \
                 {:.0} % of the time and the generator {:.0} %; believe ratios only roughly",
                server * 100.0,
                generator * 100.0
            )
        })
    }
}

fn heading(load: &Load, runs: usize) -> String {
    let waiting = if load.sleep { "sleeps between events" } else { "polls" };
    format!(
        "# ringcast-bench\n\n{runs} alternating rounds, {} s measured after {} s of warm-up; \
         server on CPU {}, generator on CPU {} ({waiting}). Figures: median (least..most). \
         Ratios: median of the ratios within each round.\n",
        load.seconds,
        load.warm_up_seconds,
        machine::SERVER_CPU,
        machine::GENERATOR_CPU
    )
}

/// What a promise is measured against.
#[derive(Clone, Copy)]
enum Against {
    /// The floor on the same driver, as a ratio.
    Floor,
    /// A rival, as a ratio.
    Rival(Server),
    /// The bare sockets of the floor, as a difference.
    AboveBareSockets,
    /// Nothing: the figure itself.
    Itself,
}

/// One thing ringcast promises of a figure.
struct Promise {
    scenario: Scenario,
    /// Index into the scenario's columns.
    column: usize,
    against: Against,
    at_most: bool,
    bound: f64,
}

/// The promises, in the order they are judged.
fn promises() -> Vec<Promise> {
    use Against::{AboveBareSockets, Floor, Itself, Rival};
    use Scenario::{Echo1, Echo16, Fanout1, Fanout64, Handshake, Idle};
    let fast = Rival(Server::Fastwebsockets);
    let tuned = Rival(Server::TungsteniteTuned);
    let promise = |scenario, column, against, at_most, bound| Promise {
        scenario,
        column,
        against,
        at_most,
        bound,
    };
    vec![
        promise(Idle, 0, Itself, true, 600.0),
        promise(Idle, 1, AboveBareSockets, true, 320.0),
        promise(Fanout1, 0, Floor, true, 1.15),
        promise(Fanout1, 0, fast, true, 0.8),
        promise(Fanout64, 1, tuned, false, 1.0),
        promise(Echo1, 0, Floor, true, 1.2),
        promise(Echo16, 0, fast, true, 0.15),
        promise(Echo16, 2, Itself, false, 15.9),
        promise(Handshake, 0, fast, true, 0.75),
    ]
}

fn verdicts(tables: &[Table]) -> (String, bool) {
    let mut text = String::from(
        "\n## What ringcast promises\n\n| server | scenario | figure | against | bound | found | |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut all = true;
    for promise in promises() {
        let Some(table) = tables.iter().find(|table| table.scenario == promise.scenario) else {
            continue;
        };
        for server in table.servers.iter().copied().filter(|server| server.is_ringcast()) {
            let (name, found) = judge(table, server, &promise);
            let side = if promise.at_most { "≤" } else { "≥" };
            let kept = found.map(|found| {
                if promise.at_most { found <= promise.bound } else { found >= promise.bound }
            });
            let mark = match kept {
                Some(true) => "kept",
                Some(false) => "**MISSED**",
                None => "not measured",
            };
            all &= kept != Some(false);
            let column = &promise.scenario.columns()[promise.column];
            let found = found.map_or("n/a".to_owned(), |found| format!("{found:.2}"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {name} | {side} {} | {found} | {mark} |",
                server.name(),
                promise.scenario.name(),
                column.name,
                promise.bound
            );
        }
    }
    (text, all)
}

fn judge(table: &Table, server: Server, promise: &Promise) -> (&'static str, Option<f64>) {
    let column = promise.column;
    match promise.against {
        Against::Itself => ("itself", table.figure(server, column)),
        Against::Rival(rival) => (rival.name(), table.ratio(server, rival, column)),
        Against::Floor => {
            let floor = match server {
                Server::RingcastEpoll => Server::FloorEpoll,
                _ => Server::FloorUring,
            };
            (floor.name(), table.ratio(server, floor, column))
        }
        Against::AboveBareSockets => {
            let bare = table.figure(Server::FloorUring, column);
            let above = table.figure(server, column).zip(bare).map(|(ours, bare)| ours - bare);
            ("above bare sockets", above)
        }
    }
}
