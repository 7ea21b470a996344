//! What may be typed: the commands and their flags. Flags that stand for keys of the
//! configuration are made from the table of keys, so that there is one list of names.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::keys::{Flag, KEYS, Key};
use crate::config::{Config, Problems, prove, raw};

/// A push server for embedded Linux edge hardware.
#[derive(Debug, Parser)]
#[command(name = "ringcast", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

impl Arguments {
    /// What is to be done. Without a command, that is to serve.
    #[must_use]
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also without any command).
    Serve(Serve),
    /// Run the server with a synthetic market feed on channels md.SYMBOL and a page that shows it.
    Demo(Serve),
    /// Print what is published to channels, one line a message.
    Sub(Sub),
    /// Publish to a channel, and wait until the server has numbered it.
    Pub(Pub),
    /// Prove a configuration and show the memory it plans, without starting anything.
    Check(Check),
}

/// How the server is to run.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// The configuration file (TOML); also RINGCAST_CONFIG. See `ringcast check --example`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The keys given as flags.
    #[command(flatten)]
    pub flags: Flags,
}

impl Serve {
    /// The configuration: `defaults`, then file, environment and flags, each over those before.
    ///
    /// # Errors
    /// With every problem there is, one line each.
    pub fn prove(self, defaults: Config) -> Result<Config, Problems> {
        let variables = std::env::vars_os();
        self.prove_in(defaults, variables.collect())
    }

    fn prove_in(
        self,
        defaults: Config,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Config, Problems> {
        let named = variables
            .iter()
            .find(|(name, value)| *name == *raw::file_variable() && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value));
        let file = self.config.or(named).map(|path| raw::file(&path));
        let layers = file.into_iter().chain([raw::environment(variables), self.flags.0]);
        prove(defaults, layers.collect())
    }
}

/// The defaults of `ringcast demo`: nobody waits half a minute for a demonstration to end, and who
/// comes back within minutes is to see what was missed.
#[must_use]
pub fn demo_defaults() -> Config {
    let mut config = Config::default();
    config.timing.drain_window = Duration::from_secs(2);
    config.rule.history.messages = 1000;
    config.rule.history.age = Duration::from_secs(600);
    config
}

/// The keys given as flags: one layer of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Flags(
    /// What they say.
    pub raw::Layer,
);

/// The flag of each key, kept for as long as `clap` wants to refer to it.
static FLAG_NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| KEYS.iter().map(Key::flag_name).collect());

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in &KEYS {
            let value = match key.flag {
                Some(Flag::Value(_)) => matches.get_one::<String>(key.name).cloned(),
                Some(Flag::Switch) => matches.get_flag(key.name).then(|| "true".into()),
                None => None,
            };
            if let Some(value) = value {
                self.0.flag(key, value);
            }
        }
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        let defaults = Config::default();
        for (index, key) in KEYS.iter().enumerate() {
            let Some(flag) = key.flag else { continue };
            let arg = Arg::new(key.name).long(FLAG_NAMES[index].as_str());
            let help = format!("{} [default: {}]", key.help, (key.show)(&defaults));
            command = command.arg(match flag {
                Flag::Value(value_name) => {
                    // Not checked here: all problems are reported together, by `prove`.
                    arg.value_name(value_name).help(help).allow_hyphen_values(true)
                }
                Flag::Switch => arg.action(ArgAction::SetTrue).help(key.help),
            });
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// What to listen to.
#[derive(Debug, Clone, Args)]
pub struct Sub {
    /// Where the server is: ws://HOST:PORT (the path is /ws when none is given).
    pub url: String,
    /// Which channels.
    #[arg(required = true)]
    pub channels: Vec<String>,
    /// Ends after this many messages.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<u64>,
    /// Begins after this message: EPOCH.SEQ, as a former run said at its end. Several channels have
    /// several, with commas between, and `-` for those without.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, group = "begin")]
    pub since: Option<String>,
    /// Begins with the last message that was published.
    #[arg(long, group = "begin")]
    pub latest: bool,
    /// Begins with the last few that were published, as far as the server keeps them.
    #[arg(long, value_name = "COUNT", group = "begin", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,
    /// What a line says.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What a line says of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// CHANNEL SEQ PAYLOAD
    #[default]
    Line,
    /// The message as the server sends it: an object with channel, seq and payload
    Json,
    /// The payload alone
    Payload,
}

/// What to publish.
#[derive(Debug, Clone, Args)]
pub struct Pub {
    /// Where the server is: ws://HOST:PORT (the path is /ws when none is given).
    pub url: String,
    /// To which channel.
    pub channel: String,
    /// The payload, any JSON value; `-` (also without one) reads one JSON value a line from
    /// standard input.
    #[arg(default_value = "-", allow_hyphen_values = true)]
    pub payload: String,
    /// Prints the number each message was given.
    #[arg(long, short)]
    pub verbose: bool,
    /// Messages on their way at once.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Seconds without an answer, reconnecting all the while, after which publishing is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub give_up: u16,
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// How the server would run.
    #[command(flatten)]
    pub serve: Serve,
    /// Prints a configuration file with every key, its meaning and its default instead.
    #[arg(long)]
    pub example: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::DriverKind;

    fn parsed(line: &str) -> Command {
        Arguments::try_parse_from(line.split_whitespace()).expect("good arguments").command()
    }

    fn serve(line: &str) -> Serve {
        match parsed(line) {
            Command::Serve(serve) | Command::Demo(serve) => serve,
            other => panic!("{line} became {other:?}"),
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        <Arguments as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        for line in ["ringcast --shards 2 --echo", "ringcast serve --shards 2 --echo"] {
            let config = serve(line).prove_in(Config::default(), Vec::new()).expect("good");
            assert_eq!(config.shards, 2);
            assert!(config.echo);
        }
    }

    #[test]
    fn flags_that_do_not_name_keys_are_refused_by_name() {
        let error = Arguments::try_parse_from(["ringcast", "--shard", "2"]).unwrap_err();
        assert!(error.to_string().contains("--shards"), "{error}");
    }

    #[test]
    fn wrong_values_of_flags_are_reported_together() {
        let serve = serve("ringcast --shards 0 --listen here --log-level loud --driver magic");
        let problems = serve.prove_in(Config::default(), Vec::new()).unwrap_err().to_string();
        let lines: Vec<&str> = problems.lines().collect();
        assert_eq!(lines.len(), 4, "{problems}");
        assert!(lines.contains(&"--shards: 0 is below the smallest allowed, 1"), "{problems}");
        assert!(lines.iter().any(|line| line.starts_with("--log-level: expected one of")));
    }

    #[test]
    fn the_environment_names_the_file_and_a_flag_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ringcast.toml");
        std::fs::write(&path, "driver = \"epoll\"\nshards = 7").expect("a file");
        let variables = vec![
            (OsString::from("RINGCAST_CONFIG"), path.into_os_string()),
            ("RINGCAST_SHARDS".into(), "5".into()),
        ];
        let config = serve("ringcast").prove_in(Config::default(), variables.clone());
        let config = config.expect("good");
        assert_eq!((config.driver, config.shards), (DriverKind::Epoll, 5));
        let other = serve("ringcast --config /nowhere").prove_in(Config::default(), variables);
        assert!(other.unwrap_err().to_string().starts_with("/nowhere: cannot be read"));
    }

    #[test]
    fn a_subscription_begins_at_one_place_only() {
        match parsed("ringcast sub ws://a b c --since -,k3x9.5 --format json") {
            Command::Sub(sub) => {
                assert_eq!(sub.since.as_deref(), Some("-,k3x9.5"));
                assert_eq!((sub.format, sub.channels.len()), (Format::Json, 2));
            }
            other => panic!("{other:?}"),
        }
        for flags in ["--latest --last 5", "--since k.5 --latest", "--last 0", "--format xml"] {
            let line = format!("ringcast sub ws://a b {flags}");
            assert!(Arguments::try_parse_from(line.split_whitespace()).is_err(), "{flags}");
        }
    }

    #[test]
    fn a_payload_may_begin_with_a_dash() {
        for (line, payload) in [
            ("ringcast pub ws://a c -5", "-5"),
            ("ringcast pub ws://a c -", "-"),
            ("ringcast pub ws://a c", "-"),
            ("ringcast pub --verbose ws://a c 5", "5"),
        ] {
            match parsed(line) {
                Command::Pub(arguments) => assert_eq!(arguments.payload, payload),
                other => panic!("{line} became {other:?}"),
            }
        }
    }
}
