//! A query, decoded and encoded again.

use super::{encode, pairs};

/// Reads a query.
///
/// # Panics
/// When what was decoded does not survive being encoded and decoded again, or when encoding leaves
/// something that a query gives a meaning to.
pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(read) = pairs(&text).collect::<Result<Vec<_>, _>>() else {
        assert!(text.contains('%'), "only encodings can be broken");
        return;
    };
    assert!(read.len() <= text.matches('&').count() + 1);
    let mut again = String::new();
    for (name, value) in &read {
        again.push('&');
        encode(&mut again, name);
        again.push('=');
        encode(&mut again, value);
    }
    assert!(again.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%&=".contains(&byte)));
    let again = pairs(&again).collect::<Result<Vec<_>, _>>().expect("it was encoded here");
    assert_eq!(again, read);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_survive_being_encoded() {
        crate::fuzz::replay("query", super::query);
    }
}
