//! Runs this program under callgrind and reads what it counted.
//!
//! One process does all scenarios, because starting under valgrind costs seconds. Callgrind writes
//! one file a scenario, in the scenarios' order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::meter::{FINISHED, MEASURED};

/// What one scenario took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// Which scenario.
    pub(crate) name: String,
    /// What one unit of its work is.
    pub(crate) unit: String,
    /// How many units were done.
    pub(crate) units: u64,
    /// Instructions of all of them.
    pub(crate) instructions: u64,
}

impl Count {
    /// Instructions of one unit.
    pub(crate) fn per_unit(&self) -> f64 {
        self.instructions as f64 / self.units as f64
    }
}

/// Where callgrind's files are left, one a scenario, beside the program's own folder.
fn folder() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).expect("a program of cargo's stands two folders deep");
    Ok(target.join("artifacts/instructions"))
}

/// The same for a message.
pub(crate) fn shown_folder() -> String {
    folder()
        .map_or_else(|_| "target/artifacts/instructions".to_owned(), |f| f.display().to_string())
}

/// Counts every scenario.
///
/// # Errors
/// When valgrind is missing or fails, or when it did not count what it should have.
pub(crate) fn count() -> io::Result<Vec<Count>> {
    let folder = folder()?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&folder)?,
    }
    let out = folder.join("part");
    let output = Command::new("valgrind")
        // Names in full, so that each file can be read without the ones before it.
        .args(["--tool=callgrind", "--quiet", "--combine-dumps=no", "--compress-strings=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-before={FINISHED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg("measure")
        // The environment lies on the stack and moves what is below it.
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        // The allocator gives memory back by the clock; under valgrind the clock runs away.
        .env("MIMALLOC_PURGE_DELAY", "-1")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            io::Error::other(format!("cannot start valgrind: {error} (Debian's package: valgrind)"))
        })?;
    if !output.status.success() {
        return Err(io::Error::other(format!("valgrind ended with {}", output.status)));
    }
    // What it wrote at the end, when all had been written down.
    fs::remove_file(&out)?;
    let told = String::from_utf8(output.stdout).map_err(io::Error::other)?;
    told.lines().enumerate().map(|(index, line)| read(&out, index + 1, line)).collect()
}

/// Reads the file of the scenario that told `line`, and gives it the scenario's name.
fn read(out: &Path, part: usize, line: &str) -> io::Result<Count> {
    let wrong = |what: &str| io::Error::other(format!("part {part}, \"{line}\": {what}"));
    let mut fields = line.split('\t');
    let (Some(name), Some(unit), Some(units), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(wrong("a scenario tells its name, its unit and how many"));
    };
    let units = units.parse().map_err(|_| wrong("no number of units"))?;
    let file = out.with_extension(part.to_string());
    let text = fs::read_to_string(&file)
        .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
    let instructions = totals(&text).ok_or_else(|| wrong("no totals in callgrind's file"))?;
    if instructions == 0 || units == 0 {
        return Err(wrong("nothing was counted; does callgrind still know `measured`?"));
    }
    fs::rename(&file, out.with_file_name(name.replace([':', ',', '\''], "").replace(' ', "-")))?;
    Ok(Count { name: name.to_owned(), unit: unit.to_owned(), units, instructions })
}

/// The sum over all functions in a file of callgrind's.
fn totals(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok()
}
