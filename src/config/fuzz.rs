//! A configuration that anyone may have written: proven, or told with the lines.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::keys::KEYS;
use super::raw::{Layer, Place, environment, file_text};
use super::{Config, MemoryPlan, Problems, prove};

/// How complaints call the file.
const FILE: &str = "ringcast.toml";

/// Proves a file, and environment variables behind a NUL, each `NAME=VALUE` up to the next NUL.
///
/// # Panics
/// When a problem has no place, spans lines, or depends on the order of the environment; or when
/// what was proven does not fit its own plan or cannot be written down again.
pub fn configuration(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let variables: Vec<Variable> = parts
        .filter_map(|part| {
            let equals = part.iter().position(|byte| *byte == b'=')?;
            let os = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((os(&part[..equals]), os(&part[equals + 1..])))
        })
        .collect();

    let proven = prove(defaults(), layers(&text, variables.iter()));
    if variables.len() > 1 && is_each_name_once(&variables) {
        let backwards = prove(defaults(), layers(&text, variables.iter().rev()));
        assert_eq!(proven, backwards, "the environment has no order");
    }
    match proven {
        Ok(config) => check_config(&config),
        Err(problems) => check_problems(&problems, &text, &variables),
    }
}

/// Defaults that are the same on every machine.
fn defaults() -> Config {
    Config { shards: 2, ..Config::default() }
}

type Variable = (OsString, OsString);

fn layers<'a>(text: &str, variables: impl Iterator<Item = &'a Variable>) -> Vec<Layer> {
    vec![file_text(FILE, text), environment(variables.cloned())]
}

fn is_each_name_once(variables: &[Variable]) -> bool {
    let mut names: Vec<&OsString> = variables.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// Nobody validates again, so what is proven must hold.
fn check_config(config: &Config) {
    let plan = MemoryPlan::of(config);
    assert!(plan.needed() <= plan.memory_max);
    assert_eq!(plan.memory_max, config.limits.memory_max);
    assert!(!plan.to_string().is_empty());
    assert!(config.timing.pong_timeout <= config.timing.ping_interval);
    assert!(config.shards >= 1 && config.limits.message_bytes_max >= 1);
    assert!(config.channels.iter().all(|rule| !rule.pattern.is_empty()));

    // Every value can be written as it is shown, and means the same again.
    let shown: String =
        KEYS.iter().map(|key| format!("{} = {}\n", key.name, (key.show)(config))).collect();
    let again = prove(defaults(), vec![file_text(FILE, &shown)]);
    let without_rules = Config { channels: Vec::new(), ..config.clone() };
    assert_eq!(again.as_ref(), Ok(&without_rules), "{shown}");
}

/// Each problem is one line that says where to look.
fn check_problems(problems: &Problems, text: &str, variables: &[Variable]) {
    assert!(!problems.0.is_empty());
    let lines = 1 + text.matches('\n').count();
    let mut last = 0;
    for problem in &problems.0 {
        let told = problem.to_string();
        assert!(!told.contains('\n'), "one line each: {told:?}");
        assert!(!problem.text.is_empty());
        match &problem.place {
            Place::Line(name, line) => {
                assert_eq!(&**name, FILE);
                assert!((1..=lines).contains(line), "line {line} of {lines}");
                assert!(told.starts_with(&format!("{FILE}:{line}: ")), "{told}");
            }
            Place::Variable(name) => {
                assert!(variables.iter().any(|(written, _)| written == name.as_str()), "{name}");
            }
            // Two defaults contradict each other only through a third value.
            Place::Default => assert!(!problem.key.is_empty(), "{told}"),
            place => panic!("{place:?}: there is no such layer"),
        }
        if let Place::Line(_, line) = problem.place {
            assert!(line >= last, "read from the top: {problems}");
            last = line;
        }
    }
    assert_eq!(problems.to_string().lines().count(), problems.0.len());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_proven_or_told_with_their_lines() {
        crate::fuzz::replay("configuration", super::configuration);
    }
}
