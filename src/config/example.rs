//! The annotated example: a configuration file made of the table of keys.

use std::fmt::Write as _;

use super::Config;
use super::channels::{CHANNEL_KEYS, CHANNEL_TABLE};
use super::keys::KEYS;

/// A configuration file in which every key stands with its meaning and its value in `config`,
/// commented out.
#[must_use]
pub fn annotated(config: &Config) -> String {
    let mut page = String::new();
    let mut table = "";
    for key in &KEYS {
        if key.table() != table {
            table = key.table();
            let _ = writeln!(page, "[{table}]\n");
        }
        comment(&mut page, key.help);
        let _ = writeln!(page, "#{} = {}\n", key.last(), (key.show)(config));
    }
    let _ = writeln!(page, "#[[{CHANNEL_TABLE}]]");
    for key in &CHANNEL_KEYS {
        comment(&mut page, key.help);
        let _ = writeln!(page, "#{} = {}", key.name, key.example);
    }
    page
}

/// Appends `text` as comment lines that fit an editor.
fn comment(page: &mut String, text: &str) {
    const WIDTH: usize = 96;
    let mut width = 1;
    page.push('#');
    for word in text.split(' ') {
        if width + 1 + word.len() > WIDTH {
            page.push_str("\n#");
            width = 1;
        }
        page.push(' ');
        page.push_str(word);
        width += 1 + word.len();
    }
    page.push('\n');
}
