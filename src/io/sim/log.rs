//! What happened, as one number for comparing runs and as lines for reading them.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::LinkId;

/// Everything that happens in a world is told here.
#[derive(Debug, Default)]
pub struct Log {
    digest: Digest,
    events: u64,
    prints: bool,
}

impl Log {
    /// From now on a line is printed for everything that happens.
    pub fn print_lines(&mut self) {
        self.prints = true;
    }

    /// Something happened, at a time in microseconds of the world.
    pub fn tell(&mut self, at: u64, link: Option<LinkId>, what: impl Hash + fmt::Debug) {
        self.events += 1;
        (at, link).hash(&mut self.digest);
        what.hash(&mut self.digest);
        if self.prints {
            let at = format!("{:>4}.{:06}", at / 1_000_000, at % 1_000_000);
            match link {
                Some(link) => println!("{at} {link:?} {what:?}"),
                None => println!("{at} world {what:?}"),
            }
        }
    }

    /// One number for all that happened: two runs of one seed agree in it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// How much happened.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }
}

/// Bytes that were sent, as a number.
pub(super) fn digest_of(bytes: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.write(bytes);
    digest.finish()
}

/// FNV-1a, eight bytes at a time: the same on every machine and in every run, which the hashers
/// of the standard library do not promise.
#[derive(Debug, Clone)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(bytes.len() as u64);
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_agree_when_the_same_happened_in_the_same_order() {
        let log = |events: &[&str]| {
            let mut log = Log::default();
            for (at, event) in events.iter().enumerate() {
                log.tell(at as u64, None, event);
            }
            log.digest()
        };
        assert_eq!(log(&["a", "b"]), log(&["a", "b"]));
        assert_ne!(log(&["a", "b"]), log(&["b", "a"]));
        assert_ne!(log(&["a"]), log(&["a", "b"]));
    }
}
