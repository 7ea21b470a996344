//! The three rules of the house that are design and not taste: which module may import which,
//! where `unsafe` may stand, and who may read a clock or draw a random number.
//!
//! The tables come first, so that a change of the design is a change of one line here.

use std::fmt;
use std::fs;
use std::path::Path;

/// What each top-level module may import: arrows point downward only. `main` and `lib` are the
/// roof and may import everything.
const IMPORTS: &[(&str, &[&[&str]])] = &[
    ("fuzz", &[]),
    ("limits", &[]),
    ("mem", &[&["limits"]]),
    ("simd", &[&["limits", "fuzz"]]),
    ("time", &[&["limits", "mem"]]),
    ("metrics", &[&["limits"]]),
    ("proto", &[GROUND]),
    ("conn", &[GROUND, &["proto"]]),
    ("hub", &[GROUND, &["proto"]]),
    ("io", &[GROUND]),
    ("web", &[GROUND, &["proto", "conn"]]),
    // The memory plan adds up what the machines and the world cost.
    ("config", &[GROUND, &["proto", "conn", "hub", "io"]]),
    ("shard", &[GROUND, &["proto", "conn", "hub", "io", "config"]]),
    ("admin", &[GROUND, &["config", "shard", "io"]]),
    ("control", &[GROUND, &["proto", "conn", "hub", "io", "config", "shard", "admin", "web"]]),
    ("cli", &[GROUND, &["proto", "io", "config", "shard", "admin", "control", "web"]]),
];

const GROUND: &[&str] = &["fuzz", "limits", "mem", "simd", "time", "metrics"];

/// Where `unsafe` may stand (a file, or a folder with its slash).
const UNSAFE: &[&str] = &["src/io/", "src/simd/x86_64.rs", "src/simd/aarch64.rs"];

/// Where a clock may be read and chance be drawn. Everywhere else both are arguments.
const CLOCKS: &[&str] = &["src/shard/", "src/control/", "src/cli/", "src/io/", "src/main.rs"];

/// What reading a clock or drawing chance looks like.
const CLOCK_CALLS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    ".elapsed(",
    "clock_gettime",
    "getrandom::",
    "RandomState::new",
];

/// Modules that must forbid `unsafe` themselves, so that the compiler says it too.
const FORBIDDING: &[&str] = &["src/proto/mod.rs", "src/conn/mod.rs", "src/hub/mod.rs"];

#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// All breaches in the file `path` (as "src/...") with the content `source`.
fn breaches(path: &str, source: &str) -> Vec<Breach> {
    let code = blank(source);
    // A file of tests beside the code is tests from its first line.
    let production = if path.ends_with("/tests.rs") { blanks(&code) } else { without_tests(&code) };
    let mut found = Vec::new();
    let mut report = |code: &str, at: usize, what: String| {
        let line = code[..at].matches('\n').count() + 1;
        found.push(Breach { file: path.to_owned(), line, what });
    };

    let module = module_path(path);
    let top = module.first().map_or("lib", String::as_str);
    if let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == top) {
        for (at, target) in imports(&production, &module) {
            if target != top && !allowed.iter().any(|group| group.contains(&target.as_str())) {
                report(&production, at, format!("`{top}` imports `{target}`"));
            }
            if target == "fuzz" && top != "fuzz" && !path.ends_with("/fuzz.rs") {
                report(&production, at, "`fuzz` outside of the fuzz bodies".to_owned());
            }
        }
    } else if !matches!(top, "main" | "lib") {
        report(&production, 0, format!("`{top}` is in no line of the table of imports"));
    }

    // Tests are held to this one too: there is nothing in them that needs it.
    if !stands_in(path, UNSAFE) {
        for at in words(&code, "unsafe") {
            report(&code, at, "`unsafe` outside of its places".to_owned());
        }
    }
    if !stands_in(path, CLOCKS) {
        for call in CLOCK_CALLS {
            for (at, _) in production.match_indices(call) {
                report(&production, at, format!("`{call}` where time and chance are arguments"));
            }
        }
    }
    if FORBIDDING.contains(&path) && !code.contains("#![forbid(unsafe_code)]") {
        report(&code, 0, "`#![forbid(unsafe_code)]` is missing".to_owned());
    }
    found
}

fn stands_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        let file_beside = place.strip_suffix('/').map(|folder| format!("{folder}.rs"));
        path == *place
            || (place.ends_with('/') && path.starts_with(place))
            || file_beside.as_deref() == Some(path)
    })
}

/// "src/proto/ws/frame.rs" is `proto::ws::frame`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The top-level modules that `code` names, each with where: by `crate::`, by `ringcast::`, or
/// by climbing with `super::`; groups in braces included.
fn imports(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for root in ["crate", "ringcast"] {
        for at in words(code, root) {
            if let Some(rest) = code[at + root.len()..].strip_prefix("::") {
                collect(rest, at, &mut found);
            }
        }
    }
    for at in words(code, "super") {
        if code[..at].ends_with("super::") {
            continue; // counted from the first one
        }
        let mut rest = &code[at..];
        let mut climbed = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            climbed += 1;
            rest = after;
        }
        if climbed == module.len() {
            collect(rest, at, &mut found);
        }
    }
    found.retain(|(_, name)| IMPORTS.iter().any(|(known, _)| known == name));
    found
}

/// The first name of a path, or of every path of a group.
fn collect(rest: &str, at: usize, found: &mut Vec<(usize, String)>) {
    let Some(group) = rest.strip_prefix('{') else {
        found.push((at, name_at(rest)));
        return;
    };
    let mut depth = 0;
    let mut expecting = true;
    for (index, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => expecting = true,
            _ if expecting && !byte.is_ascii_whitespace() => {
                found.push((at, name_at(&group[index..])));
                expecting = false;
            }
            _ => {}
        }
    }
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Where `word` stands as a word of its own.
fn words(code: &str, word: &str) -> Vec<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| !code[..*at].ends_with(part_of_name))
        .filter(|at| !code[at + word.len()..].starts_with(part_of_name))
        .collect()
}

/// The code with everything inside `#[cfg(test)] mod ... { }` blanked.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let after = code[start..].trim_start_matches("#[cfg(test)]");
        let Some(open) = after.find('{').filter(|_| after.trim_start().starts_with("mod ")) else {
            continue;
        };
        let open = start + "#[cfg(test)]".len() + open;
        let mut depth = 0_usize;
        let end = code[open..].bytes().position(|byte| {
            depth += usize::from(byte == b'{');
            depth -= usize::from(byte == b'}');
            depth == 0
        });
        let end = open + end.expect("braces match once comments and strings are gone");
        kept.replace_range(open..end, &blanks(&code[open..end]));
    }
    kept
}

fn blanks(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The source with comments, strings and character literals blanked: same length in bytes, same
/// lines, nothing but code.
fn blank(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &source[at..];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, out.chars().last()) {
            length
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            0
        };
        if skipped > 0 {
            out.push_str(&blanks(&rest[..skipped]));
            at += skipped;
        } else {
            let character = rest.chars().next().expect("not at the end");
            out.push(if character.is_ascii() { character } else { '_' });
            (1..character.len_utf8()).for_each(|_| out.push('_'));
            at += character.len_utf8();
        }
    }
    out
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest[at..].chars().next().map_or(0, char::len_utf8);
        }
        if depth == 0 || at >= rest.len() {
            return at;
        }
    }
}

/// The length of `r"..."`, `r#"..."#`, `br"..."` at the start of `rest`.
fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let start = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r')?;
    let hashes = start.bytes().take_while(|byte| *byte == b'#').count();
    let body = start[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(rest.len() - body.len() + body.find(&close)? + close.len())
}

/// The length of a literal in `quote`s, escapes included.
fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Whether the `'` at the start of `rest` opens a character literal and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    match characters.next() {
        Some('\\') => true,
        Some(_) => characters.next() == Some('\''),
        None => false,
    }
}

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).expect("src is readable").flatten().collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("below the tree");
            let source = fs::read_to_string(&path).expect("source is UTF-8");
            found.push((name.to_string_lossy().replace('\\', "/"), source));
        }
    }
}

fn tree() -> Vec<(String, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 10, "the tree was found");
    found
}

#[test]
fn imports_unsafe_and_clocks_are_where_they_belong() {
    let found: Vec<String> = tree()
        .iter()
        .flat_map(|(path, source)| breaches(path, source))
        .map(|breach| breach.to_string())
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_module_of_the_tree_has_a_line_in_the_table_and_the_table_has_no_other() {
    let mut modules: Vec<String> =
        tree().iter().map(|(path, _)| module_path(path)[0].clone()).collect();
    modules.retain(|name| name != "main" && name != "lib");
    modules.dedup();
    modules.sort();
    modules.dedup();
    let mut table: Vec<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    table.sort_unstable();
    assert_eq!(modules, table);
}

#[test]
fn the_table_has_no_circle() {
    // Each round takes away the modules whose imports are all gone; a circle would remain.
    let mut left: Vec<_> = IMPORTS.to_vec();
    loop {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, groups)| {
            groups.iter().any(|group| group.iter().any(|name| names.contains(name)))
        });
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "a circle among {left:?}");
}

// ---- the checker itself ----

fn found(path: &str, source: &str) -> Vec<(usize, String)> {
    breaches(path, source).into_iter().map(|breach| (breach.line, breach.what)).collect()
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    for source in [
        "//! x\nuse crate::shard::Shard;",
        "//! x\nuse crate::{mem::Key, shard::{self, Shard}};",
        "//! x\nfn f() -> crate::shard::Shard { todo() }",
        "//! x\nuse super::super::shard;",
        "//! x\nuse ringcast::shard;",
    ] {
        assert_eq!(
            found("src/hub/outbox.rs", source),
            [(2, "`hub` imports `shard`".to_owned())],
            "{source}"
        );
    }
}

#[test]
fn machines_that_know_each_other_are_found() {
    assert_eq!(found("src/hub/outbox.rs", "use crate::conn;").len(), 1);
    assert_eq!(found("src/conn/open.rs", "use crate::hub;").len(), 1);
    assert_eq!(found("src/conn/open.rs", "use crate::config::Config;").len(), 1);
    assert_eq!(found("src/io/epoll.rs", "use crate::proto::ws;").len(), 1);
}

#[test]
fn a_downward_import_and_one_of_the_same_module_are_fine() {
    let source = "use crate::{limits, mem::Key};\nuse crate::proto::ws;\nuse crate::hub::topic;\nuse super::topic;";
    assert_eq!(found("src/hub/outbox.rs", source), []);
    assert_eq!(found("src/main.rs", "use ringcast::cli;"), []);
}

#[test]
fn the_help_for_fuzz_bodies_is_for_fuzz_bodies_only() {
    let source = "use crate::fuzz::Choices;";
    assert_eq!(found("src/proto/json/fuzz.rs", source), []);
    assert_eq!(found("src/proto/json.rs", source).len(), 1);
    assert_eq!(found("src/shard/receive.rs", source).len(), 1);
    assert_eq!(found("src/time/fuzz.rs", source), [(1, "`time` imports `fuzz`".to_owned())]);
}

#[test]
fn a_module_that_nobody_listed_is_found() {
    assert_eq!(found("src/util.rs", "").len(), 1);
}

#[test]
fn unsafe_outside_of_its_places_is_found_in_tests_too() {
    let source = "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { unsafe { h() } }\n}";
    assert_eq!(
        found("src/mem/table.rs", source),
        [(4, "`unsafe` outside of its places".to_owned())]
    );
    assert_eq!(found("src/simd/mod.rs", "unsafe fn f() {}").len(), 1);
    assert_eq!(found("src/simd/aarch64.rs", "unsafe fn f() {}"), []);
    assert_eq!(found("src/io/uring/ring.rs", "unsafe impl Send for X {}"), []);
}

#[test]
fn a_missing_forbid_is_found() {
    assert_eq!(found("src/conn/mod.rs", "//! #![forbid(unsafe_code)]").len(), 1);
    assert_eq!(found("src/conn/mod.rs", "#![forbid(unsafe_code)]"), []);
}

#[test]
fn a_clock_or_chance_in_a_machine_is_found_but_not_in_its_tests() {
    let source = "fn f() { let now = std::time::Instant::now(); }";
    assert_eq!(found("src/conn/open.rs", source).len(), 1);
    assert_eq!(found("src/hub/mod.rs", &format!("#![forbid(unsafe_code)] {source}")).len(), 1);
    assert_eq!(found("src/conn/open.rs", "fn f() { getrandom::fill(&mut b); }").len(), 1);
    assert_eq!(found("src/shard/mod.rs", source), []);
    assert_eq!(found("src/conn/open.rs", &format!("#[cfg(test)]\nmod tests {{ {source} }}")), []);
}

#[test]
fn comments_and_literals_are_not_code() {
    let source = r##"
        // unsafe crate::shard
        /* unsafe /* nested */ Instant::now */
        const A: &str = "unsafe \" crate::shard";
        const B: &str = r#"unsafe " crate::shard"#;
        const C: char = '"';
        fn lifetimes<'a>(a: &'a str) -> &'a str { a }
        const D: &[u8] = b"unsafe";
    "##;
    assert_eq!(found("src/hub/outbox.rs", source), []);
    // and what follows such a literal still is
    let source = "const C: char = '\"'; use crate::shard; const D: char = '\"';";
    assert_eq!(found("src/hub/outbox.rs", source).len(), 1);
}
