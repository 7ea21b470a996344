//! Offers of extensions: any text is judged once, and offers that are made up are judged as the
//! one who made them up knows they must be.

use super::{Agreement, NAME, WINDOW_BITS_MAX, negotiate};
use crate::fuzz::Choices;
use crate::proto::ws::deflate::Reach;

/// Judges the input as a header, and offers made up from it.
///
/// # Panics
/// When an answer is no answer to its offer, when where a list is cut makes a difference, or when
/// an offer is not judged as it must be.
pub fn extension(data: &[u8]) {
    let mut choices = Choices::new(data);
    let window_bytes_max = choices.one_of(&[4_096, 0, 256, 32_768, 5_000]);
    match choices.byte() % 2 {
        0 => judge(choices.remaining(), window_bytes_max),
        _ => make_up(&mut choices, window_bytes_max),
    }
}

fn judge(value: &[u8], window_bytes_max: usize) {
    let Ok(value) = std::str::from_utf8(value) else { return };
    let verdict = negotiate([value].into_iter(), window_bytes_max);
    if let Ok(Some(agreement)) = verdict {
        assert!(value.contains(NAME));
        check_answer(agreement, window_bytes_max);
    }
    // A list in several headers is one list (RFC 9110 5.3), if it is not cut inside quotes.
    if !value.contains('"') {
        assert_eq!(negotiate(value.split(','), window_bytes_max), verdict);
    }
}

/// What we answer is a form of what can be offered, and as an offer it leads to the same.
fn check_answer(agreement: Agreement, window_bytes_max: usize) {
    assert!(agreement.window_bytes_max() <= window_bytes_max);
    let mut answer = Vec::new();
    agreement.write(&mut answer);
    let answer = std::str::from_utf8(&answer).expect("text");
    let again = negotiate([answer].into_iter(), window_bytes_max).expect("sound").expect("met");
    assert_eq!(again.server_max_window_bits, agreement.server_max_window_bits);
    if agreement.client_no_context_takeover {
        assert!(again.client_no_context_takeover);
    } else {
        assert_eq!(again, agreement);
    }
}

/// One parameter of an offer, and whether it may stand there.
fn parameter(choices: &mut Choices<'_>) -> (&'static str, Option<String>, bool) {
    let bits = u32::from(choices.byte() % 20);
    let is_bits = (8..=15).contains(&bits);
    match choices.byte() % 8 {
        0 => ("server_no_context_takeover", None, true),
        1 => ("client_no_context_takeover", None, true),
        2 | 3 => ("server_max_window_bits", Some(bits.to_string()), is_bits),
        4 => ("client_max_window_bits", None, true),
        5 => ("client_max_window_bits", Some(bits.to_string()), is_bits),
        6 => ("server_max_window_bits", None, false),
        _ => ("x", Some(bits.to_string()), false),
    }
}

/// Makes up a list of offers, and knows which of them is to be taken.
fn make_up(choices: &mut Choices<'_>, window_bytes_max: usize) {
    let mut value = String::new();
    let mut expected = None;
    for _ in 0..1 + choices.byte() % 3 {
        let is_ours = choices.one_of(&[false, true, true, true]);
        value.push_str(choices.one_of(&["", ",", " , ", ",,"]));
        value.push_str(if is_ours { NAME } else { "x-other" });
        let mut parameters: Vec<(&str, Option<String>)> = Vec::new();
        let mut is_met = is_ours;
        for _ in 0..choices.byte() % 4 {
            let (name, number, may_stand) = parameter(choices);
            is_met &= may_stand && parameters.iter().all(|(before, _)| *before != name);
            value.push_str(choices.one_of(&[";", "; ", " ;\t"]));
            value.push_str(name);
            if let Some(number) = &number {
                let (before, after) = choices.one_of(&[("=", ""), ("=\"", "\""), ("=\"\\", "\"")]);
                value.extend([before, number, after]);
            }
            parameters.push((name, number));
        }
        value.push(',');
        if is_met && expected.is_none() {
            expected = Some(parameters);
        }
    }
    let verdict = negotiate([value.as_str()].into_iter(), window_bytes_max);
    match (verdict, expected) {
        (Ok(None), None) => {}
        (Ok(Some(agreement)), Some(parameters)) => {
            check_answer(agreement, window_bytes_max);
            check_agreement(agreement, &parameters);
        }
        (verdict, expected) => panic!("{value}: {verdict:?}, not {expected:?}"),
    }
}

/// The agreement keeps to what was offered.
fn check_agreement(agreement: Agreement, parameters: &[(&str, Option<String>)]) {
    let find = |name| parameters.iter().find(|(other, _)| *other == name);
    let bits = |number: &Option<String>| {
        number.as_ref().map_or(WINDOW_BITS_MAX, |number| number.parse().expect("a number"))
    };
    if find("client_no_context_takeover").is_some() {
        assert_eq!(agreement.window_bytes_max(), 0);
    }
    match find("client_max_window_bits") {
        None => assert!(matches!(agreement.window_bytes_max(), 0 | 32_768)),
        Some((_, number)) => assert!(agreement.window_bytes_max() <= 1 << bits(number)),
    }
    match find("server_max_window_bits") {
        None => assert_eq!(agreement.server_max_window_bits, None),
        Some((_, number)) => {
            assert_eq!(agreement.reach, Reach::within(bits(number)));
            assert!(agreement.server_max_window_bits.is_some_and(|told| told <= bits(number)));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_answered_as_they_were_offered() {
        crate::fuzz::replay("extension", super::extension);
    }
}
