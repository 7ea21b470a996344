//! How people write a configuration: a file, the environment, flags. Each becomes a [`Layer`]
//! of settings that know where they were written; `prove` reads their values.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::channels::{CHANNEL_KEYS, CHANNEL_TABLE, ChannelKey};
use super::keys::{KEYS, Key, VARIABLE_PREFIX};
use super::nearest::nearest;
use super::prove::Problem;
use super::value::Value;

/// Bytes of a configuration file. A hand-written one has a few KiB; what is larger was meant
/// for something else (`--config /dev/zero`).
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On a line of the file, counted from 1.
    Line(Arc<str>, usize),
    /// The file as a whole.
    File(Arc<str>),
    /// In an environment variable.
    Variable(String),
    /// In a flag, with its dashes.
    Flag(String),
    /// Nowhere: it is the default.
    Default,
}

impl Place {
    /// Whether the place names the key already, so that a complaint need not.
    #[must_use]
    pub const fn names_key(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Flag(_))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(path, line) => write!(out, "{path}:{line}: "),
            Self::File(path) => write!(out, "{path}: "),
            Self::Variable(name) => write!(out, "{name}: "),
            Self::Flag(name) => write!(out, "{name}: "),
            Self::Default => Ok(()),
        }
    }
}

/// One key with its value, and where that was written.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Which key.
    pub key: &'static Key,
    /// What was written.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// One `[[channel]]`.
#[derive(Debug, Clone)]
pub struct RawRule {
    /// Where it begins.
    pub place: Place,
    /// What stands in it.
    pub settings: Vec<(&'static ChannelKey, Value, Place)>,
}

/// What one source says, unread: later layers win over earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// The keys it sets.
    pub settings: Vec<Setting>,
    /// The channel rules it has.
    pub rules: Vec<RawRule>,
    /// What in it could not even be taken for a setting.
    pub problems: Vec<Problem>,
}

impl Layer {
    fn complain(&mut self, place: Place, key: &str, text: impl Into<String>) {
        self.problems.push(Problem { place, key: key.into(), text: text.into() });
    }

    /// Adds what a flag says.
    pub fn flag(&mut self, key: &'static Key, value: String) {
        let place = Place::Flag(format!("--{}", key.flag_name()));
        self.settings.push(Setting { key, value: Value::Word(value), place });
    }
}

/// The variable that names the file.
#[must_use]
pub fn file_variable() -> String {
    format!("{VARIABLE_PREFIX}CONFIG")
}

/// Reads the layer of a file. A file that cannot be read is a problem like any other, so that
/// it is reported together with the rest.
#[must_use]
pub fn file(path: &Path) -> Layer {
    let name: Arc<str> = path.display().to_string().into();
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let mut layer = Layer::default();
    if let Err(error) = read {
        layer.complain(Place::File(name), "", format!("cannot be read: {error}"));
        return layer;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        layer.complain(Place::File(name), "", "larger than 1MiB: this is no configuration file");
        return layer;
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => file_text(&name, text),
        Err(error) => {
            let line = line_of(&bytes, error.valid_up_to());
            layer.complain(Place::Line(name, line), "", "not UTF-8");
            layer
        }
    }
}

/// Reads the layer of a file's text; `name` is how complaints call the file.
#[must_use]
pub fn file_text(name: &str, text: &str) -> Layer {
    let mut reader = Reader { name: name.into(), text, layer: Layer::default() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // What is left of a broken file after recovery would be complained about twice.
        let place = reader.place(error.span().map_or(text.len(), |span| span.start));
        reader.layer.complain(place, "", error.message().replace('\n', " "));
    }
    if errors.is_empty() {
        reader.table("", table.get_ref());
    }
    // The parser's tables are sorted by name; people read files from the top.
    reader.layer.settings.sort_by_key(|setting| line(&setting.place));
    reader.layer.problems.sort_by_key(|problem| line(&problem.place));
    reader.layer
}

/// Reads the layer of the environment: every `RINGCAST_*` variable that has a value. An empty
/// one counts as not set, as shells and container files make them by accident.
#[must_use]
pub fn environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
            continue;
        };
        // Names that belong to the test suites and the load generator.
        let foreign = ["TEST_", "BENCH_"]
            .iter()
            .any(|prefix| name[VARIABLE_PREFIX.len()..].starts_with(prefix));
        if foreign || name == file_variable() || value.is_empty() {
            continue;
        }
        let place = Place::Variable(name.into());
        let Some(value) = value.to_str() else {
            layer.complain(place, "", "not UTF-8");
            continue;
        };
        if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
            layer.settings.push(Setting { key, value: Value::Word(value.into()), place });
            continue;
        }
        let names: Vec<String> = KEYS.iter().map(Key::variable).chain([file_variable()]).collect();
        let text = unknown("variable", nearest(name, names.iter().map(String::as_str)));
        layer.complain(place, "", text);
    }
    // The environment has no order; complaints should not change theirs from run to run.
    layer.settings.sort_by_key(|setting| setting.place.to_string());
    layer.problems.sort_by_key(|problem| problem.place.to_string());
    layer
}

fn unknown(what: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("unknown {what}; did you mean {name}?"),
        None => format!("unknown {what}"),
    }
}

fn line(place: &Place) -> usize {
    if let Place::Line(_, line) = place { *line } else { 0 }
}

fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Walks the tables of one file.
struct Reader<'a> {
    name: Arc<str>,
    text: &'a str,
    layer: Layer,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        Place::Line(self.name.clone(), line_of(self.text.as_bytes(), offset))
    }

    /// Reads the table called `table`, which is empty for the top of the file.
    fn table(&mut self, table: &str, entries: &DeTable<'_>) {
        for (key, value) in entries {
            let place = self.place(key.span().start);
            let name = match table {
                "" => key.get_ref().to_string(),
                _ => format!("{table}.{}", key.get_ref()),
            };
            if let Some(key) = KEYS.iter().find(|key| key.name == name) {
                let value = written(value.get_ref());
                self.layer.settings.push(Setting { key, value, place });
            } else if name == CHANNEL_TABLE {
                self.rules(place, value.get_ref());
            } else if let Some(inner) = value.get_ref().as_table().filter(|_| table.is_empty()) {
                self.inner_table(place, &name, inner);
            } else if KEYS.iter().any(|key| key.table() == name) {
                let text = format!("is a table; write [{name}] and its keys below");
                self.layer.complain(place, &name, text);
            } else {
                let names = KEYS.iter().map(|key| key.name).chain([CHANNEL_TABLE]);
                let text = unknown("key", nearest(&name, names));
                self.layer.complain(place, &name, text);
            }
        }
    }

    fn inner_table(&mut self, place: Place, name: &str, entries: &DeTable<'_>) {
        let mut tables: Vec<&str> = KEYS.iter().map(Key::table).filter(|t| !t.is_empty()).collect();
        tables.dedup();
        if entries.is_empty() && !tables.contains(&name) {
            let text = unknown("table", nearest(name, tables));
            self.layer.complain(place, name, text);
        }
        // The keys of an unknown table are looked at one by one: each finds its nearest.
        self.table(name, entries);
    }

    fn rules(&mut self, place: Place, value: &DeValue<'_>) {
        let expected = format!("write [[{CHANNEL_TABLE}]] above each rule's keys");
        let Some(rules) = value.as_array() else {
            return self.layer.complain(place, CHANNEL_TABLE, expected);
        };
        for rule in rules.iter() {
            let place = self.place(rule.span().start);
            let Some(entries) = rule.get_ref().as_table() else {
                self.layer.complain(place, CHANNEL_TABLE, expected.clone());
                continue;
            };
            let mut settings = Vec::new();
            self.rule("", entries, &mut settings);
            self.layer.rules.push(RawRule { place, settings });
        }
    }

    /// Reads the keys of one rule, or of the table `within` it: `history = { messages = 100 }`.
    fn rule(
        &mut self,
        within: &str,
        entries: &DeTable<'_>,
        settings: &mut Vec<(&'static ChannelKey, Value, Place)>,
    ) {
        for (key, value) in entries {
            let place = self.place(key.span().start);
            let name = format!("{within}{}", key.get_ref());
            let inner = format!("{name}.");
            if let Some(key) = CHANNEL_KEYS.iter().find(|key| key.name == name) {
                settings.push((key, written(value.get_ref()), place));
            } else if let Some(table) = value.get_ref().as_table()
                && CHANNEL_KEYS.iter().any(|key| key.name.starts_with(&inner))
            {
                self.rule(&inner, table, settings);
            } else {
                let near = nearest(&name, CHANNEL_KEYS.iter().map(|key| key.name));
                let name = format!("{CHANNEL_TABLE}.{name}");
                self.layer.complain(place, &name, unknown("key", near));
            }
        }
    }
}

fn written(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number beyond all bounds"),
        },
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => {
            let texts = list.iter().map(|value| value.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map_or(Value::Other("a list"), Value::List)
        }
        DeValue::Table(_) => Value::Other("a table"),
    }
}
