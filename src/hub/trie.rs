//! Which of many patterns match a name, without looking at each of them.
//!
//! ```text
//! iot.*.temp   iot.7.>   md.>
//!
//! o- iot - * - temp .
//! |      `- 7 - > .
//! `- md - > .
//! ```
//!
//! A name is followed from the root, at each node by its next segment and by the star: at most
//! twice as many ways for each of the few stars a pattern may have, whatever other patterns there are.

use std::collections::BTreeMap;

/// Values under patterns that passed [`is_pattern`](crate::proto::envelope::pattern::is_pattern):
/// so a trie is never deeper than they are long.
#[derive(Debug)]
pub(super) struct Trie<T> {
    root: Node<T>,
}

/// Where all patterns with one beginning are. No node but the root is empty.
#[derive(Debug)]
struct Node<T> {
    /// Of the pattern that ends here.
    here: Option<T>,
    /// Of the pattern that goes on with `>`.
    rest: Option<T>,
    /// Patterns that go on with `*`.
    star: Option<Box<Self>>,
    /// Patterns that go on with a name. Names are chosen by clients: an ordered map has no worst case.
    names: BTreeMap<Box<str>, Self>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Trie<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    pub(super) fn get(&self, pattern: &str) -> Option<&T> {
        self.root.get(Some(pattern))
    }

    /// What stands under `pattern`, which `make` makes if nothing does.
    pub(super) fn get_or_insert_with(&mut self, pattern: &str, make: impl FnOnce() -> T) -> &mut T {
        self.root.place(Some(pattern)).get_or_insert_with(make)
    }

    /// Lets `edit` change what stands under `pattern`, and takes it away when `edit` says so.
    pub(super) fn edit(&mut self, pattern: &str, edit: impl FnOnce(&mut T) -> bool) {
        self.root.edit(Some(pattern), edit);
    }

    pub(super) fn remove(&mut self, pattern: &str) {
        self.edit(pattern, |_| true);
    }

    /// Shows to `visit` what stands under each pattern that matches `name`.
    pub(super) fn visit(&self, name: &str, visit: &mut impl FnMut(&T)) {
        self.root.visit(Some(name), visit);
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { here: None, rest: None, star: None, names: BTreeMap::new() }
    }
}

/// The first segment, and what is behind the dot after it.
fn split(segments: &str) -> (&str, Option<&str>) {
    match segments.split_once('.') {
        Some((first, behind)) => (first, Some(behind)),
        None => (segments, None),
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.rest.is_none() && self.star.is_none() && self.names.is_empty()
    }

    fn get(&self, pattern: Option<&str>) -> Option<&T> {
        let Some(pattern) = pattern else { return self.here.as_ref() };
        match split(pattern) {
            (">", None) => self.rest.as_ref(),
            ("*", behind) => self.star.as_ref()?.get(behind),
            (name, behind) => self.names.get(name)?.get(behind),
        }
    }

    fn place(&mut self, pattern: Option<&str>) -> &mut Option<T> {
        let Some(pattern) = pattern else { return &mut self.here };
        match split(pattern) {
            (">", None) => &mut self.rest,
            ("*", behind) => self.star.get_or_insert_default().place(behind),
            (name, behind) => self.names.entry(name.into()).or_default().place(behind),
        }
    }

    fn edit(&mut self, pattern: Option<&str>, edit: impl FnOnce(&mut T) -> bool) {
        let value = match pattern.map(split) {
            None => &mut self.here,
            Some((">", None)) => &mut self.rest,
            Some(("*", behind)) => {
                if let Some(star) = &mut self.star {
                    star.edit(behind, edit);
                }
                self.star.take_if(|star| star.is_empty());
                return;
            }
            Some((name, behind)) => {
                let Some(node) = self.names.get_mut(name) else { return };
                node.edit(behind, edit);
                if node.is_empty() {
                    self.names.remove(name);
                }
                return;
            }
        };
        value.take_if(edit);
    }

    fn visit(&self, name: Option<&str>, visit: &mut impl FnMut(&T)) {
        let Some(name) = name else {
            self.here.iter().for_each(visit);
            return;
        };
        self.rest.iter().for_each(&mut *visit);
        let (segment, behind) = split(name);
        if let Some(node) = self.names.get(segment) {
            node.visit(behind, visit);
        }
        if let Some(star) = &self.star {
            star.visit(behind, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::proto::envelope::pattern;

    /// Names and patterns of few letters, so that many match.
    fn drawn(random: &mut fastrand::Rng, segments: &[&str], last: &[&str]) -> String {
        let count = random.usize(..5);
        let mut drawn: Vec<&str> =
            (0..count).map(|_| random.choice(segments).copied().expect("some")).collect();
        drawn.push(random.choice(last).expect("some"));
        drawn.join(".")
    }

    fn found(trie: &Trie<usize>, name: &str) -> Vec<usize> {
        let mut found = Vec::new();
        trie.visit(name, &mut |value| found.push(*value));
        found.sort_unstable();
        found
    }

    #[test]
    fn a_trie_finds_what_looking_at_each_pattern_finds() {
        let mut matched = 0;
        for seed in 0..300 {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut trie = Trie::default();
            let mut all: BTreeMap<String, usize> = BTreeMap::new();
            for step in 0..200 {
                let drawn_pattern = drawn(random, &["a", "b", "*", "ab"], &["a", "*", ">", "c"]);
                if random.u8(..3) == 0 {
                    let known = random.choice(all.keys().cloned().collect::<Vec<_>>());
                    let ending = known.unwrap_or(drawn_pattern);
                    trie.remove(&ending);
                    all.remove(&ending);
                } else {
                    let value = *all.entry(drawn_pattern.clone()).or_insert(step);
                    assert_eq!(*trie.get_or_insert_with(&drawn_pattern, || step), value);
                }
                let name = drawn(random, &["a", "b", "", "c"], &["a", "b", "ab", ""]);
                let expected = all.iter().filter(|(known, _)| pattern::matches(known, &name));
                let mut expected: Vec<usize> = expected.map(|(_, value)| *value).collect();
                expected.sort_unstable();
                assert_eq!(found(&trie, &name), expected, "seed {seed}: {name} in {all:?}");
                matched += expected.len();
            }
            for (known, value) in &all {
                assert_eq!(trie.get(known), Some(value));
            }
            for known in all.keys() {
                assert!(!trie.is_empty());
                trie.remove(known);
            }
            assert!(trie.is_empty(), "seed {seed}: nothing is left of what was removed");
        }
        assert!(matched > 10_000, "{matched} matches prove little");
    }

    #[test]
    fn what_was_never_there_can_be_removed_and_leaves_no_trace() {
        let mut trie = Trie::default();
        trie.get_or_insert_with("a.*", || 1);
        for pattern in ["a", "a.*.b", "a.>", "b.*", ">"] {
            trie.remove(pattern);
            assert_eq!((trie.get(pattern), trie.get("a.*")), (None, Some(&1)));
        }
    }

    #[test]
    fn all_ways_through_the_fullest_trie_are_few() {
        // Every pattern of 16 segments with at most three of its stars, and a name they all match.
        let mut trie = Trie::default();
        let mut count = 0;
        for stars in 0_u32..1 << 16 {
            if stars.count_ones() <= 3 {
                let segments = (0..16).map(|at| if stars >> at & 1 == 1 { "*" } else { "a" });
                trie.get_or_insert_with(&segments.collect::<Vec<_>>().join("."), || 0);
                count += 1;
            }
        }
        assert_eq!(found(&trie, &["a"; 16].join(".")).len(), count);
        assert!(found(&trie, &["a"; 128].join(".")).is_empty());
    }
}
