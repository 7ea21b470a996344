//! The committed table: what the hot paths took, and on what.
//!
//! A count more than [`TOLERANCE_PERCENT`] above its line is a regression. One as far below fails
//! too: a table that is not tightened after an improvement would let the next regression eat it.

use std::fmt;
use std::io;
use std::process::Command;

use crate::UPDATE;
use crate::callgrind::Count;

/// How far a count may be from its line. The same program counts the same; what moves it a little
/// is another choice of the compiler in code that has not changed.
const TOLERANCE_PERCENT: f64 = 5.0;

/// What the counts depend on besides the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// Name and value, in order.
    facts: Vec<(String, String)>,
}

/// The table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    /// On what it was made.
    pub(crate) head: Head,
    /// Its lines.
    pub(crate) counts: Vec<Count>,
}

/// What is to be said of one scenario.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Near its line.
    Good { now: Count, percent: f64 },
    /// A regression.
    More { now: Count, before: f64, percent: f64 },
    /// An improvement that the table does not know of.
    Fewer { now: Count, before: f64, percent: f64 },
    /// Not in the table.
    New { now: Count },
    /// In the table and nowhere else.
    Gone { name: String },
}

impl Head {
    /// Of this machine and the compiler that cargo uses in this tree.
    pub(crate) fn of_this_machine() -> io::Result<Self> {
        let facts = [
            ("compiler", said_by("rustc")?),
            ("architecture", std::env::consts::ARCH.to_owned()),
            ("mask", ringcast::simd::chosen().to_owned()),
            ("C compiler", said_by("cc")?),
            ("C library", said_by("ldd")?),
            ("valgrind", said_by("valgrind")?),
        ];
        Ok(Self { facts: facts.map(|(name, value)| (name.to_owned(), value)).into() })
    }

    /// What `now` has otherwise, one sentence each.
    pub(crate) fn differences(&self, now: &Self) -> Vec<String> {
        let of = |name: &str| {
            let known = self.facts.iter().find(|(known, _)| known == name);
            known.map_or("unknown", |(_, value)| value.as_str())
        };
        now.facts
            .iter()
            .filter(|(name, value)| of(name) != value)
            .map(|(name, value)| format!("{name}: here {value}, there {}", of(name)))
            .collect()
    }
}

/// The first line of what `program --version` says.
fn said_by(program: &str) -> io::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| io::Error::other(format!("{program} --version: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("nothing").trim().to_owned())
}

impl Baseline {
    /// Reads what [`Display`](fmt::Display) wrote.
    ///
    /// # Errors
    /// The line that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut baseline = Self { head: Head { facts: Vec::new() }, counts: Vec::new() };
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                if let Some((name, value)) = comment.split_once(": ") {
                    baseline.head.facts.push((name.trim().to_owned(), value.to_owned()));
                }
                continue;
            }
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            match columns[..] {
                [""] | ["scenario", ..] => {}
                [name, unit, units, instructions, _] => {
                    let number = |text: &str| {
                        text.parse().map_err(|_| format!("\"{text}\" is no count: {line}"))
                    };
                    baseline.counts.push(Count {
                        name: name.to_owned(),
                        unit: unit.to_owned(),
                        units: number(units)?,
                        instructions: number(instructions)?,
                    });
                }
                _ => return Err(format!("not a line of five columns: {line}")),
            }
        }
        Ok(baseline)
    }

    /// Holds `counts` against the table.
    pub(crate) fn judge(&self, counts: &[Count]) -> Vec<Verdict> {
        let judged = counts.iter().cloned().map(|now| {
            let Some(line) = self.counts.iter().find(|line| line.name == now.name) else {
                return Verdict::New { now };
            };
            let before = line.per_unit();
            let percent = (now.per_unit() - before) / before * 100.0;
            if percent > TOLERANCE_PERCENT {
                Verdict::More { now, before, percent }
            } else if percent < -TOLERANCE_PERCENT {
                Verdict::Fewer { now, before, percent }
            } else {
                Verdict::Good { now, percent }
            }
        });
        let gone = self.counts.iter().filter(|line| counts.iter().all(|now| now.name != line.name));
        judged.chain(gone.map(|line| Verdict::Gone { name: line.name.clone() })).collect()
    }
}

impl Verdict {
    /// Whether the gate stays open.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Good { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { now, percent } => {
                write!(f, "ok      {:<52} {:>12.1} {percent:>+6.2} %", now.name, now.per_unit())
            }
            Self::More { now, before, percent } => write!(
                f,
                "FAILED  {:<52} {:>12.1} {percent:>+6.2} %: more than the {before:.1} of the baseline",
                now.name,
                now.per_unit()
            ),
            Self::Fewer { now, before, percent } => write!(
                f,
                "FAILED  {:<52} {:>12.1} {percent:>+6.2} %: fewer than the {before:.1} of the \
                 baseline; update it, so that nothing eats what was won",
                now.name,
                now.per_unit()
            ),
            Self::New { now } => write!(
                f,
                "FAILED  {:<52} {:>12.1}: not in the baseline; update it",
                now.name,
                now.per_unit()
            ),
            Self::Gone { name } => {
                write!(f, "FAILED  {name:<52}: in the baseline and not counted; update it")
            }
        }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions of the hot paths, as callgrind counts them. A change of more than"
        )?;
        writeln!(
            f,
            "# {TOLERANCE_PERCENT} % in either direction fails `tests/run instructions`. Rewritten by"
        )?;
        writeln!(f, "#   {UPDATE}")?;
        writeln!(f, "#")?;
        for (name, value) in &self.head.facts {
            writeln!(f, "# {name}: {value}")?;
        }
        writeln!(f)?;
        let width = |column: fn(&Count) -> &str| {
            self.counts.iter().map(|count| column(count).len()).max().unwrap_or(0).max(8)
        };
        let (names, units) = (width(|count| &count.name), width(|count| &count.unit));
        writeln!(
            f,
            "{:<names$} | {:<units$} | {:>7} | {:>12} | {:>12}",
            "scenario", "unit", "units", "instructions", "per unit"
        )?;
        for count in &self.counts {
            writeln!(
                f,
                "{:<names$} | {:<units$} | {:>7} | {:>12} | {:>12.1}",
                count.name,
                count.unit,
                count.units,
                count.instructions,
                count.per_unit()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, instructions: u64) -> Count {
        Count { name: name.to_owned(), unit: "message".to_owned(), units: 10, instructions }
    }

    fn table() -> Baseline {
        let facts = [("compiler", "rustc 1"), ("mask", "avx2")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let counts = vec![count("decode", 1_000), count("tick, 1,000 due", 2_000)];
        Baseline { head: Head { facts: facts.into() }, counts }
    }

    #[test]
    fn a_table_that_was_written_is_read_back_the_same() {
        let text = table().to_string();
        assert_eq!(Baseline::parse(&text), Ok(table()), "{text}");
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        assert!(Baseline::parse("decode | message | 10").is_err());
        assert!(Baseline::parse("decode | message | 10 | many | 1.0").is_err());
    }

    #[test]
    fn five_percent_pass_and_what_is_beyond_fails_in_either_direction() {
        for (instructions, is_good) in
            [(1_000, true), (1_050, true), (1_051, false), (950, true), (949, false)]
        {
            let verdicts =
                table().judge(&[count("decode", instructions), count("tick, 1,000 due", 2_000)]);
            assert_eq!(verdicts[0].is_good(), is_good, "{instructions}: {}", verdicts[0]);
            assert!(verdicts[1].is_good());
        }
    }

    #[test]
    fn a_scenario_on_one_side_only_fails() {
        let verdicts = table().judge(&[count("decode", 1_000), count("encode", 5)]);
        assert!(verdicts[0].is_good());
        assert_eq!(verdicts[1], Verdict::New { now: count("encode", 5) });
        assert_eq!(verdicts[2], Verdict::Gone { name: "tick, 1,000 due".to_owned() });
        assert!(verdicts[1..].iter().all(|verdict| !verdict.is_good()));
    }

    #[test]
    fn another_compiler_is_told() {
        let mut here = table().head;
        assert!(table().head.differences(&here).is_empty());
        here.facts[0].1 = "rustc 2".to_owned();
        assert_eq!(table().head.differences(&here), ["compiler: here rustc 2, there rustc 1"]);
    }
}
