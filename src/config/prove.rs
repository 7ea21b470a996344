//! From what people wrote to a [`Config`], once, with all problems reported together.
//!
//! Later layers win over earlier ones: defaults, then file, then environment, then flags. A
//! value that loses is still read: what is wrong in a file is wrong, whatever today's flags say.

use std::fmt::{self, Write as _};

use super::channels::{self, CHANNEL_KEYS, CHANNEL_TABLE};
use super::keys::KEYS;
use super::plan::MemoryPlan;
use super::raw::{Layer, Place, RawRule};
use super::value::{Size, Span};
use super::{ChannelRule, Config, Descriptors, DriverKind};

/// TCP_NOTSENT_LOWAT where a channel has a `max_age` and nothing else was asked for: a second on a line of
/// 64 kbit/s, and still several messages at once.
const NOTSENT_LOWAT_BYTES_WITH_MAX_AGE: usize = 8 * 1024;

/// One thing that is wrong, in one line: where, which key, what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The key's name; empty when it is about more than one key.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.place.names_key() { "" } else { self.key.as_str() };
        let colon = if key.is_empty() { "" } else { ": " };
        // Names are told as they were written, and TOML and the environment let anything be one.
        for character in format!("{}{key}{colon}{}", self.place, self.text).chars() {
            match character.is_control() {
                true => write!(out, "{}", character.escape_default())?,
                false => out.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Everything that is wrong, one line each. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(
    /// In the order they were written.
    pub Vec<Problem>,
);

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Proves what `layers` say over `defaults`; each layer wins over those before it.
///
/// # Errors
/// With every problem there is.
pub fn prove(defaults: Config, layers: Vec<Layer>) -> Result<Config, Problems> {
    let mut proof = Proof {
        config: defaults,
        problems: Vec::new(),
        places: KEYS.iter().map(|_| Place::Default).collect(),
    };
    for layer in layers {
        proof.take(layer);
    }
    // Relations between values that are wrong themselves would only add noise.
    if proof.problems.is_empty() {
        proof.relate();
    }
    match proof.problems.is_empty() {
        true => Ok(proof.config),
        false => Err(Problems(proof.problems)),
    }
}

/// A proof under way.
struct Proof {
    config: Config,
    problems: Vec<Problem>,
    /// Where the value that counts was written, for each of [`KEYS`].
    places: Vec<Place>,
}

impl Proof {
    fn take(&mut self, layer: Layer) {
        self.problems.extend(layer.problems);
        for setting in layer.settings {
            match (setting.key.set)(&mut self.config, &setting.value) {
                Ok(()) => {
                    let index = KEYS.iter().position(|key| key.name == setting.key.name);
                    self.places[index.expect("settings name keys of the table")] = setting.place;
                }
                Err(text) => self.problems.push(Problem {
                    place: setting.place,
                    key: setting.key.name.into(),
                    text,
                }),
            }
        }
        // Rules stand in the file only, after the top level's keys were read.
        for rule in layer.rules {
            self.rule(rule);
        }
        self.problems.sort_by(|one, other| match (&one.place, &other.place) {
            (Place::Line(_, one), Place::Line(_, other)) => one.cmp(other),
            _ => std::cmp::Ordering::Equal,
        });
    }

    fn rule(&mut self, raw: RawRule) {
        let required = &CHANNEL_KEYS[0];
        let mut rule = ChannelRule { pattern: String::new(), rule: self.config.rule.clone() };
        if !raw.settings.iter().any(|(key, ..)| key.name == required.name) {
            let text = format!("needs {} = \"...\"", required.name);
            self.problems.push(Problem { place: raw.place, key: CHANNEL_TABLE.into(), text });
            return;
        }
        for (key, value, place) in &raw.settings {
            if let Err(text) = (key.set)(&mut rule, value) {
                let key = format!("{CHANNEL_TABLE}.{}", key.name);
                self.problems.push(Problem { place: place.clone(), key, text });
            }
        }
        if rule.rule.history.messages == 0
            && let Some((key, _, place)) = raw.settings.iter().find(|(key, ..)| {
                key.name.starts_with("history.") && key.name != "history.messages"
            })
        {
            let text = "keeps nothing without history.messages".into();
            let key = format!("{CHANNEL_TABLE}.{}", key.name);
            self.problems.push(Problem { place: place.clone(), key, text });
        }
        let place_of = |name: &str| {
            raw.settings
                .iter()
                .find(|(key, ..)| key.name == name)
                .map(|(_, _, place)| place.clone())
        };
        if rule.rule.conflate.interval.is_none()
            && place_of("conflate.interval").is_none()
            && let Some(place) = place_of("conflate.key")
        {
            let text = "conflates nothing without conflate.interval".into();
            let key = format!("{CHANNEL_TABLE}.conflate.key");
            self.problems.push(Problem { place, key, text });
        }
        if rule.rule.presence.grace.is_none()
            && place_of("presence.grace").is_none()
            && let Some((key, _, place)) =
                raw.settings.iter().find(|(key, ..)| key.name.starts_with("presence."))
        {
            let text = "lists nobody without presence.grace".into();
            let key = format!("{CHANNEL_TABLE}.{}", key.name);
            self.problems.push(Problem { place: place.clone(), key, text });
        }
        if let Some((names, text)) = channels::contradiction(&rule.rule)
            && let Some((key, _, place)) =
                raw.settings.iter().find(|(key, ..)| names.contains(&key.name))
        {
            let key = format!("{CHANNEL_TABLE}.{}", key.name);
            self.problems.push(Problem { place: place.clone(), key, text });
        }
        let mut earlier = self.config.channels.iter();
        if !rule.pattern.is_empty() && earlier.any(|earlier| earlier.pattern == rule.pattern) {
            let text =
                format!("{:?} stands above already, and the first rule decides", rule.pattern);
            let key = format!("{CHANNEL_TABLE}.{}", required.name);
            self.problems.push(Problem { place: raw.place, key, text });
        }
        self.config.channels.push(rule);
    }

    /// Complains about the key called `name` at the place its value comes from.
    fn complain(&mut self, name: &str, text: String) {
        let index = KEYS.iter().position(|key| key.name == name);
        let place = self.places[index.expect("a key of the table")].clone();
        self.problems.push(Problem { place, key: name.into(), text });
    }

    /// What the kernel keeps unsent nobody can drop, so where messages may become too old it is little.
    fn keep_kernel_buffers_short(&mut self) {
        if !self.config.rules().have_max_age() {
            return;
        }
        const LOWAT: &str = "socket.notsent_lowat_bytes";
        let place = KEYS.iter().position(|key| key.name == LOWAT).expect("a key of the table");
        let socket = &mut self.config.socket;
        if self.places[place] == Place::Default {
            socket.notsent_lowat_bytes = Some(NOTSENT_LOWAT_BYTES_WITH_MAX_AGE);
        } else if socket.notsent_lowat_bytes.is_none() && socket.send_buffer_bytes.is_none() {
            let text = "with max_age the kernel must not keep much unsent: write a size, or one for \
                        socket.send_buffer_bytes";
            self.complain(LOWAT, text.into());
        }
    }

    /// What must hold between values that are each fine alone.
    fn relate(&mut self) {
        let (listen, timing) = (self.config.listen, self.config.timing.clone());
        if let Some(admin) = self.config.admin {
            let overlap = admin.ip() == listen.ip()
                || admin.ip().is_unspecified()
                || listen.ip().is_unspecified();
            // Port 0 asks the kernel for a free one.
            if admin.port() == listen.port() && admin.port() != 0 && overlap {
                self.complain("admin", format!("{admin} is taken by listen, {listen}"));
            }
        }
        // The next ping would leave before the last one was given up.
        if timing.pong_timeout > timing.ping_interval {
            let (pong, ping) = (Span(timing.pong_timeout), Span(timing.ping_interval));
            let text = format!("{pong} is longer than timing.ping_interval, {ping}");
            self.complain("timing.pong_timeout", text);
        }
        if self.config.driver == DriverKind::Epoll && self.config.descriptors == Descriptors::Direct
        {
            let text = "the epoll driver has no direct descriptors".into();
            self.complain("descriptors", text);
        }
        if let Some((_, text)) = channels::contradiction(&self.config.rule) {
            self.complain("max_age", text);
        }
        self.keep_kernel_buffers_short();
        let plan = MemoryPlan::of(&self.config);
        if plan.needed() > plan.memory_max {
            let (largest, bytes) = plan.largest();
            let text = format!(
                "{} cannot hold what is planned, {}; the largest part is {largest} with {}",
                Size(plan.memory_max),
                Size(plan.needed().next_multiple_of(1 << 20)),
                Size(bytes.next_multiple_of(1 << 10)),
            );
            self.complain("limits.memory_max", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::super::example::annotated;
    use super::super::raw::{environment, file, file_text};
    use super::super::{Cors, LogFormat, Overflow};
    use super::*;
    use crate::hub::{Conflate, Presence};

    fn proven(text: &str) -> Result<Config, String> {
        let layers = vec![file_text("ringcast.toml", text)];
        prove(Config::default(), layers).map_err(|problems| problems.to_string())
    }

    fn variables(pairs: &[(&str, &str)]) -> Layer {
        environment(pairs.iter().map(|(name, value)| (OsString::from(name), (*value).into())))
    }

    fn flag(name: &str, value: &str) -> Layer {
        let mut layer = Layer::default();
        let key = KEYS.iter().find(|key| key.name == name).expect("a key");
        layer.flag(key, value.into());
        layer
    }

    /// Fuzzing saw a complaint that spanned two lines, and could have held a terminal's escape
    /// sequence: TOML and the environment let a name have any character, and it was told raw.
    #[test]
    fn a_problem_is_one_line_whatever_the_name_is() {
        let told = proven("\"a\\n\\u001b[2J\" = 1").unwrap_err();
        assert_eq!(told, "ringcast.toml:1: a\\n\\u{1b}[2J: unknown key");
        let layers = vec![variables(&[("RINGCAST_A\nB", "1")])];
        let told = prove(Config::default(), layers).unwrap_err().to_string();
        assert!(told.starts_with("RINGCAST_A\\nB: unknown variable"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let told = proven("limits.message_bytes_max = \"64\\nMB\"").unwrap_err();
        assert_eq!(told.lines().count(), 1, "{told}");
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        assert_eq!(proven(""), Ok(Config::default()));
        assert_eq!(prove(Config::default(), Vec::new()), Ok(Config::default()));
    }

    #[test]
    fn the_annotated_example_means_the_defaults_too() {
        let example = annotated(&Config::default());
        assert_eq!(proven(&example), Ok(Config::default()));
        let settings: String = example
            .lines()
            .take_while(|line| !line.starts_with("#[["))
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(proven(&settings), Ok(Config::default()));
        assert_ne!(settings, example);
    }

    #[test]
    fn every_part_of_the_file_reaches_its_place() {
        let config = proven(
            r#"
            listen = "0.0.0.0:80"
            admin = "off"
            shards = 3
            overflow = "close"
            limits.connections_per_address_max = 100
            [timing]
            idle_timeout = "2m"
            [socket]
            send_buffer_bytes = "16KiB"
            notsent_lowat_bytes = "off"
            [log]
            format = "json"
            [[channel]]
            match = "md.*"
            overflow = "drop_newest"
            conflate = { key = "symbol", interval = "100ms" }
            max_age = "500ms"
            [[channel]]
            match = "orders"
            [[channel]]
            match = "room.*"
            presence = { grace = "5s", events = "off", users_max = 7 }
            "#,
        )
        .expect("a good file");
        assert_eq!(config.listen.port(), 80);
        assert_eq!(config.admin, None);
        assert_eq!(config.shards, 3);
        assert_eq!(config.limits.connections_per_address_max, Some(100));
        assert_eq!(config.timing.idle_timeout, Some(Duration::from_secs(120)));
        assert_eq!(config.socket.send_buffer_bytes, Some(16384));
        assert_eq!(config.socket.notsent_lowat_bytes, None);
        assert_eq!(config.log.format, LogFormat::Json);
        let rules = config.rules();
        assert_eq!(rules.of("md.AAPL").overflow, Overflow::DropNewest);
        assert_eq!(rules.of("md.AAPL").conflate.key.as_deref(), Some("symbol"));
        assert_eq!(rules.of("md.AAPL").conflate.interval, Some(Duration::from_millis(100)));
        assert_eq!(rules.of("md.AAPL").max_age, Some(Duration::from_millis(500)));
        assert_eq!(rules.of("orders").max_age, None);
        assert_eq!(rules.of("orders").conflate, Conflate::default());
        let grace = Some(Duration::from_secs(5));
        assert_eq!(rules.presence_in("room.1"), Presence { grace, events: None, users_max: 7 });
        assert_eq!(rules.presence_in("orders"), Presence::default());
        assert_eq!(rules.of("orders").overflow, Overflow::Close);
        assert_eq!(rules.of("other").overflow, Overflow::Close);
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let text = "shards = 3\nlisten = \"127.0.0.1:1\"\ndriver = \"epoll\"";
        let layers = vec![
            file_text("f", text),
            variables(&[("RINGCAST_SHARDS", "4"), ("RINGCAST_LISTEN", "127.0.0.1:2")]),
            flag("shards", "5"),
        ];
        let config = prove(Config::default(), layers).expect("good");
        assert_eq!(config.shards, 5);
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.driver, DriverKind::Epoll);
        assert_eq!(config.admin, Config::default().admin);
    }

    #[test]
    fn all_problems_are_reported_together_with_their_lines() {
        let text = "lisen = \"127.0.0.1:1\"\n\
                    pin = \"yes\"\n\
                    shards = 0\n\
                    [limits]\n\
                    message_bytes_max = \"64 MB\"\n\
                    connection_max = 5\n\
                    [timing]\n\
                    ping_interval = 25\n\
                    [[channel]]\n\
                    match = \"a\"\n\
                    overflow = \"drop\"\n\
                    [[channel]]\n\
                    overflows = \"close\"\n";
        let layers = vec![
            file_text("ringcast.toml", text),
            variables(&[
                ("RINGCAST_SHARDS", "many"),
                ("RINGCAST_LIMITS_CONNECTION_MAX", "5"),
                ("RINGCAST_TEST_SEED", "5"),
                ("RINGCAST_BENCH_CORE", "5"),
                ("RINGCAST_CONFIG", "x"),
                ("RINGCAST_ADMIN", ""),
                ("HOME", "/"),
            ]),
            flag("shards", "0"),
        ];
        let problems = prove(Config::default(), layers).unwrap_err().to_string();
        let expected = "\
ringcast.toml:1: lisen: unknown key; did you mean listen?
ringcast.toml:2: pin: expected true or false, found the string \"yes\"
ringcast.toml:3: shards: 0 is below the smallest allowed, 1
ringcast.toml:5: limits.message_bytes_max: 64 MB is above the largest allowed, 16MiB
ringcast.toml:6: limits.connection_max: unknown key; did you mean limits.connections_max?
ringcast.toml:8: timing.ping_interval: expected a duration like \"500ms\", \"25s\" or \"2m\", found the number 25
ringcast.toml:11: channel.overflow: expected one of \"drop_oldest\", \"drop_newest\", \"close\", found the string \"drop\"
ringcast.toml:12: channel: needs match = \"...\"
ringcast.toml:13: channel.overflows: unknown key; did you mean overflow?
RINGCAST_LIMITS_CONNECTION_MAX: unknown variable; did you mean RINGCAST_LIMITS_CONNECTIONS_MAX?
RINGCAST_SHARDS: expected a whole number, found \"many\"
--shards: 0 is below the smallest allowed, 1";
        assert_eq!(problems, expected);
    }

    #[test]
    fn what_is_not_toml_is_named_with_its_line() {
        for (text, line) in [
            ("listen = ", 1),
            ("\n\nlisten = \"a\nb\"", 3),
            ("shards = 1\npin = true\nshards = 2", 3),
            ("[limits]\n[limits]", 2),
            ("shards 4", 1),
        ] {
            let problems = proven(text).unwrap_err();
            assert!(problems.starts_with(&format!("ringcast.toml:{line}: ")), "{problems}");
        }
    }

    #[test]
    fn wrong_shapes_are_told_what_to_write() {
        for (text, expected) in [
            (
                "limits = 5",
                "ringcast.toml:1: limits: is a table; write [limits] and its keys below",
            ),
            ("[limit]", "ringcast.toml:1: limit: unknown table; did you mean limits?"),
            (
                "[[chanel]]\nmatch = \"a\"",
                "ringcast.toml:1: chanel: unknown key; did you mean channel?",
            ),
            (
                "[limit]\nmessage_bytes_max=1024",
                "ringcast.toml:2: limit.message_bytes_max: unknown key; did you mean limits.message_bytes_max?",
            ),
            (
                "[channel]\nmatch = \"a\"",
                "ringcast.toml:1: channel: write [[channel]] above each rule's keys",
            ),
            ("channel = [5]", "ringcast.toml:1: channel: write [[channel]] above each rule's keys"),
            (
                "listen = 8080",
                "ringcast.toml:1: listen: expected an IP address and a port, like \"0.0.0.0:8080\" or \"[::]:8080\", found the number 8080",
            ),
            ("[shards]\na = 1", "ringcast.toml:1: shards: expected a whole number, found a table"),
            (
                "shards = 1.5",
                "ringcast.toml:1: shards: expected a whole number, found a number with a fraction",
            ),
            (
                "limits.connections_per_address_max = 0",
                "ringcast.toml:1: limits.connections_per_address_max: 0 is below the smallest allowed, 1 (or \"off\")",
            ),
            (
                "[[channel]]\nmatch = \"a\"\n[[channel]]\nmatch = \"a\"",
                "ringcast.toml:3: channel.match: \"a\" stands above already, and the first rule decides",
            ),
            (
                "[[channel]]\nmatch = \"a\"\nconflate = { key = \"k\" }",
                "ringcast.toml:3: channel.conflate.key: conflates nothing without conflate.interval",
            ),
            (
                "[[channel]]\nmatch = \"a\"\nconflate = { key = \"a b\", interval = \"5ms\" }",
                "ringcast.toml:3: channel.conflate.interval: 5ms is below the smallest allowed, 10ms (or \"off\")\n\
                 ringcast.toml:3: channel.conflate.key: holds something else than ASCII letters, digits and signs",
            ),
            (
                "[[channel]]\nmatch = \"a\"\npresence = { events = \"2s\" }",
                "ringcast.toml:3: channel.presence.events: lists nobody without presence.grace",
            ),
            (
                "[[channel]]\nmatch = \"a\"\npresence = { grace = \"2h\", events = \"5ms\", users_max = 0 }",
                "ringcast.toml:3: channel.presence.events: 5ms is below the smallest allowed, 10ms (or \"off\")\n\
                 ringcast.toml:3: channel.presence.grace: 2h is above the largest allowed, 1h (or \"off\")\n\
                 ringcast.toml:3: channel.presence.users_max: 0 is below the smallest allowed, 1",
            ),
            (
                "[[channel]]\nmatch = \"a\"\nconflate = { interval = \"1s\" }\nmax_age = \"1500ms\"",
                "ringcast.toml:3: channel.conflate.interval: max_age 1500ms is less than twice conflate.interval 1s: what waits for its end would be dropped as too old",
            ),
            (
                "[[channel]]\nmatch = \"\"",
                "ringcast.toml:2: channel.match: 0 bytes long; 1 to 255 can match a channel",
            ),
        ] {
            assert_eq!(proven(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn values_that_are_fine_alone_must_fit_together() {
        for (text, expected) in [
            (
                "listen = \"0.0.0.0:9000\"\nadmin = \"127.0.0.1:9000\"",
                "ringcast.toml:2: admin: 127.0.0.1:9000 is taken by listen, 0.0.0.0:9000",
            ),
            (
                "timing.ping_interval = \"5s\"",
                "timing.pong_timeout: 10s is longer than timing.ping_interval, 5s",
            ),
            (
                "driver = \"epoll\"\ndescriptors = \"direct\"",
                "ringcast.toml:2: descriptors: the epoll driver has no direct descriptors",
            ),
            (
                "max_age = \"1s\"\nconflate.interval = \"600ms\"",
                "ringcast.toml:1: max_age: max_age 1s is less than twice conflate.interval 600ms: what waits for its end would be dropped as too old",
            ),
            (
                "socket.notsent_lowat_bytes = \"off\"\n[[channel]]\nmatch = \"a\"\nmax_age = \"1s\"",
                "ringcast.toml:1: socket.notsent_lowat_bytes: with max_age the kernel must not keep much unsent: write a size, or one for socket.send_buffer_bytes",
            ),
        ] {
            assert_eq!(proven(text).unwrap_err(), expected);
        }
        assert!(proven("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"").is_ok());
        // What may become too old waits where it can be dropped, unless somebody knows better.
        let lowat = |text: &str| proven(text).expect("good").socket.notsent_lowat_bytes;
        assert_eq!(lowat("max_age = \"1s\""), Some(8192));
        assert_eq!(lowat("max_age = \"1s\"\nsocket.notsent_lowat_bytes = \"64KiB\""), Some(65536));
        assert_eq!(lowat("max_age = \"off\""), Some(131_072));
        let tight =
            proven("shards = 1\n[limits]\nmemory_max = \"64MiB\"\nconnections_max = 5000000");
        let tight = tight.unwrap_err();
        assert!(
            tight.starts_with("ringcast.toml:3: limits.memory_max: 64MiB cannot hold"),
            "{tight}"
        );
        assert!(tight.contains("the largest part is connections with"), "{tight}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_one_line() {
        let layers = vec![file("/nowhere/ringcast.toml".as_ref()), flag("shards", "x")];
        let problems = prove(Config::default(), layers).unwrap_err().to_string();
        assert_eq!(
            problems,
            "/nowhere/ringcast.toml: cannot be read: No such file or directory (os error 2)\n\
             --shards: expected a whole number, found \"x\""
        );
    }

    #[test]
    fn origins_are_a_list_a_star_or_none() {
        let app: Box<str> = "https://app.example".into();
        let local: Box<str> = "http://localhost:3000".into();
        for (written, cors) in [
            ("cors = \"off\"", Cors::Off),
            ("cors = []", Cors::Off),
            ("cors = \"*\"", Cors::Any),
            ("cors = \"https://app.example\"", Cors::Listed(vec![app.clone()])),
            (
                "cors = [\"https://app.example\", \"http://localhost:3000\"]",
                Cors::Listed(vec![app.clone(), local.clone()]),
            ),
        ] {
            assert_eq!(proven(written).unwrap().cors, cors, "{written}");
        }
        let both = variables(&[("RINGCAST_CORS", "https://app.example, http://localhost:3000")]);
        let config = prove(Config::default(), vec![both]).unwrap();
        assert_eq!(config.cors, Cors::Listed(vec![app, local]));
        let told = proven("cors = [\"https://app.example/\"]").unwrap_err();
        assert!(
            told.starts_with("ringcast.toml:1: cors: \"https://app.example/\" is not"),
            "{told}"
        );
        let told = proven("cors = [1]").unwrap_err();
        assert!(told.contains("expected a list of origins"), "{told}");
        assert!(proven("cors = true").is_err());
    }
}
