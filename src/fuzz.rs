//! What the fuzz bodies share: decisions drawn from an input, and the corpora.
//!
//! A body stands beside the code it attacks, in a file called `fuzz.rs`; it takes any bytes and
//! panics when a rule is broken. It is run in two ways. libFuzzer drives it through a thin target
//! (`tests/fuzz/targets`, started by `tests/fuzz/run`). And every plain `cargo test` replays the
//! corpus in `tests/fixtures/fuzz/<target>` and some thousands of seeded mutations of it: what was
//! found once stays found. This is compiled for tests and fuzzing only.

use std::ops::Range;

/// Decisions drawn from an input, front to back. When it is used up, all of them are zero.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// All of `data` is to be decided with.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether nothing is left to decide with.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A number up to 255.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// A number up to 65,535.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of a few.
    ///
    /// # Panics
    /// When there are none.
    pub fn one_of<T: Copy>(&mut self, few: &[T]) -> T {
        few[usize::from(self.byte()) % few.len()]
    }

    /// The next `count` bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn remaining(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// Up to 15 lengths, for [`cuts`].
    pub fn lengths(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte() % 16);
        self.bytes(count)
    }
}

/// Cuts a stream into pieces of these lengths, over and over. A length of zero is all that is
/// left, and so are no lengths.
pub fn cuts(stream_bytes: usize, lengths: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        if start == stream_bytes {
            return None;
        }
        let end = match lengths.next() {
            None | Some(0) => stream_bytes,
            Some(length) => (start + usize::from(*length)).min(stream_bytes),
        };
        Some(std::mem::replace(&mut start, end)..end)
    })
}

#[cfg(test)]
pub(crate) use replay::replay;

#[cfg(test)]
mod replay {
    use std::fs;
    use std::path::Path;

    /// Inputs made from the corpus of each target in a plain test run.
    const MUTATIONS: u64 = 5_000;

    /// Bytes of a mutated input. What a larger one could show, it shows in hours and not here.
    const INPUT_BYTES_MAX: usize = 4_096;

    /// Feeds `body` the corpus of `target`, then seeded mutations of it.
    pub(crate) fn replay(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz").join(target);
        let mut corpus = Vec::new();
        for entry in fs::read_dir(&folder).expect("every target has a corpus").flatten() {
            let input = fs::read(entry.path()).expect("a fixture is readable");
            corpus.push((entry.file_name().to_string_lossy().into_owned(), input));
        }
        corpus.sort();
        assert!(!corpus.is_empty(), "nothing in {}", folder.display());
        for (name, input) in &corpus {
            run(body, input, format!("tests/fixtures/fuzz/{target}/{name}"));
        }
        for seed in 0..MUTATIONS {
            let input = mutated(&corpus, seed);
            run(body, &input, format!("{target}, seed {seed}"));
        }
    }

    fn run(body: fn(&[u8]), input: &[u8], name: String) {
        let told = Told { name, input };
        body(input);
        drop(told);
    }

    /// Says what was fed when the body panics, as a line that makes a fixture of it.
    struct Told<'a> {
        name: String,
        input: &'a [u8],
    }

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let bytes: String =
                    self.input.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                eprintln!("{}: printf '{bytes}' > FIXTURE", self.name);
            }
        }
    }

    /// An input of the corpus with up to four changes.
    fn mutated(corpus: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
        const EDGES: [u8; 12] =
            [0, 1, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0xff, b'"', b'\n', b'\r', b' '];
        let mut random = fastrand::Rng::with_seed(seed);
        let other = random.usize(..corpus.len());
        let mut input = corpus[random.usize(..corpus.len())].1.clone();
        for _ in 0..random.usize(1..=4) {
            let at = random.usize(..=input.len());
            let most = 1 << random.usize(..7);
            let bytes = random.usize(1..=most).min(input.len() - at);
            match random.usize(..8) {
                0 | 1 if bytes > 0 => input[at] ^= 1 << random.usize(..8),
                2 if bytes > 0 => input[at] = EDGES[random.usize(..EDGES.len())],
                3 => input.insert(at, random.u8(..)),
                4 => drop(input.drain(at..at + bytes)),
                5 => {
                    let again = input[at..at + bytes].to_vec();
                    drop(input.splice(at..at, again));
                }
                6 => {
                    let other = &corpus[other].1;
                    let from = random.usize(..=other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                _ => input.truncate(at),
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    #[test]
    fn mutations_of_a_seed_are_the_same_and_those_of_others_differ() {
        let corpus = [(String::new(), b"some input".to_vec()), (String::new(), b"other".to_vec())];
        let all: Vec<Vec<u8>> = (0..100).map(|seed| mutated(&corpus, seed)).collect();
        assert_eq!(all, (0..100).map(|seed| mutated(&corpus, seed)).collect::<Vec<_>>());
        let mut different = all.clone();
        different.sort();
        different.dedup();
        assert!(different.len() > 80, "{}", different.len());
    }

    /// Files of one corpus, so that replaying stays a matter of moments.
    const FIXTURES_MAX: usize = 100;

    fn names(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&folder).expect("the folder is there").flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_target_drives_a_body_that_replays_its_corpus_and_every_corpus_has_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
        let manifest = read("tests/fuzz/Cargo.toml");
        let mut targets = Vec::new();
        for file in names("tests/fuzz/targets") {
            let target = file.trim_end_matches(".rs");
            assert!(manifest.contains(&format!("path = \"targets/{file}\"")), "{file}");
            // `ringcast::proto::json::fuzz::json(data)` stands in src/proto/json/fuzz.rs.
            let thin = read(&format!("tests/fuzz/targets/{file}"));
            let path = thin.split("ringcast::").nth(1).expect("the path of a body");
            let (module, call) = path.split_once("::fuzz::").expect("a body in a file called fuzz");
            assert!(call.starts_with(&format!("{target}(data)")), "{call}");
            let body = read(&format!("src/{}/fuzz.rs", module.replace("::", "/")));
            assert!(body.contains(&format!("replay(\"{target}\", super::{target})")), "{target}");
            targets.push(target.to_owned());
        }
        assert_eq!(names("tests/fixtures/fuzz"), targets);
        for target in targets {
            let folder = format!("tests/fixtures/fuzz/{target}");
            let files = names(&folder);
            assert!(files.len() <= FIXTURES_MAX, "{} files in {folder}", files.len());
            for file in files {
                let file = format!("{folder}/{file}");
                let bytes = fs::metadata(root.join(&file)).expect("a fixture").len();
                assert!(bytes <= 2 * INPUT_BYTES_MAX as u64 + 512, "{file} has {bytes} bytes");
            }
        }
    }

    #[test]
    fn cuts_are_the_stream_in_order() {
        for lengths in [&[][..], &[1], &[3, 0], &[2, 1, 7]] {
            let bytes: Vec<usize> = super::cuts(11, lengths).flatten().collect();
            assert!(bytes.iter().copied().eq(0..11), "{lengths:?}");
            assert!(super::cuts(11, lengths).all(|piece| !piece.is_empty()));
        }
        assert_eq!(super::cuts(5, &[2]).count(), 3);
    }
}
