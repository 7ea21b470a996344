use super::*;

const WINDOW: usize = 4 * 1024;

/// What is answered to these headers.
fn answer_with(values: &[&str], window_bytes_max: usize) -> Result<Option<String>, Malformed> {
    let agreement = negotiate(values.iter().copied(), window_bytes_max)?;
    Ok(agreement.map(|agreement| {
        let mut out = Vec::new();
        agreement.write(&mut out);
        let said = String::from_utf8(out).unwrap();
        let rest = said.strip_prefix("permessage-deflate; server_no_context_takeover").unwrap();
        rest.to_owned()
    }))
}

fn answer(value: &str) -> Result<Option<String>, Malformed> {
    answer_with(&[value], WINDOW)
}

fn agreed(value: &str, window_bytes_max: usize) -> Agreement {
    negotiate([value].into_iter(), window_bytes_max).unwrap().unwrap()
}

#[test]
fn what_browsers_and_libraries_offer_is_agreed_to() {
    for (offer, expected) in [
        // Firefox: a window that may not be narrowed is larger than what is kept.
        ("permessage-deflate", "; client_no_context_takeover"),
        // Chromium and npm `ws`.
        ("permessage-deflate; client_max_window_bits", "; client_max_window_bits=12"),
        // Python `websockets`.
        (
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            "; server_max_window_bits=12; client_max_window_bits=12",
        ),
        ("permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
        (
            "permessage-deflate; client_no_context_takeover; client_max_window_bits",
            "; client_no_context_takeover",
        ),
        (
            "permessage-deflate;server_no_context_takeover;client_max_window_bits=9",
            "; client_max_window_bits=9",
        ),
    ] {
        assert_eq!(answer(offer), Ok(Some(expected.to_owned())), "{offer}");
    }
}

#[test]
fn every_window_of_ours_is_within_what_was_allowed() {
    for bits in 8..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let promised = bits.min(12).min(if bits < 12 { 9 } else { 12 });
        let expected = format!("; client_no_context_takeover; server_max_window_bits={promised}");
        assert_eq!(answer(&offer), Ok(Some(expected.clone())));
        let expected = expected.replace(&format!("={promised}"), "");
        assert!(!answer("permessage-deflate").unwrap().unwrap().contains(&expected));
        assert_eq!(agreed(&offer, WINDOW).reach, Reach::within(bits));
    }
}

#[test]
fn no_more_is_kept_of_a_client_than_we_afford_and_it_makes_use_of() {
    for (offer, window_bytes_max, kept) in [
        ("permessage-deflate", 32 * 1024, 32 * 1024),
        ("permessage-deflate", 32 * 1024 - 1, 0),
        ("permessage-deflate", 0, 0),
        ("permessage-deflate; client_max_window_bits", 32 * 1024, 32 * 1024),
        ("permessage-deflate; client_max_window_bits", 5_000, 4_096),
        ("permessage-deflate; client_max_window_bits", 512, 512),
        // Hardly anybody could compress with one of 256.
        ("permessage-deflate; client_max_window_bits", 511, 0),
        ("permessage-deflate; client_max_window_bits=8", 256, 256),
        ("permessage-deflate; client_max_window_bits", 0, 0),
        ("permessage-deflate; client_max_window_bits=10", 4_096, 1_024),
        ("permessage-deflate; client_max_window_bits=8", 4_096, 256),
        ("permessage-deflate; client_max_window_bits=15", 4_096, 4_096),
        ("permessage-deflate; client_no_context_takeover", 32 * 1024, 0),
    ] {
        let agreement = agreed(offer, window_bytes_max);
        assert_eq!(agreement.window_bytes_max(), kept, "{offer}, {window_bytes_max}");
        let said = answer_with(&[offer], window_bytes_max).unwrap().unwrap();
        assert_eq!(said.contains("client_no_context_takeover"), kept == 0, "{offer}: {said}");
        // RFC 7692 7.1.2.2: said only to who said that it understands.
        assert!(!said.contains("client_max") || offer.contains("client_max"), "{said}");
    }
}

#[test]
fn the_first_offer_that_can_be_met_is_taken_wherever_it_stands() {
    let narrow = "permessage-deflate; client_max_window_bits=9";
    let wide = "permessage-deflate; client_max_window_bits=10";
    let expected = |bits: u8| Ok(Some(format!("; client_max_window_bits={bits}")));
    assert_eq!(answer(&format!("{narrow}, {wide}")), expected(9));
    assert_eq!(answer(&format!("{wide},{narrow}")), expected(10));
    assert_eq!(answer(&format!("x-other; a=b; c, {narrow}")), expected(9));
    assert_eq!(answer(&format!("permessage-deflate; colour=red, {narrow}")), expected(9));
    assert_eq!(answer_with(&[wide, narrow], WINDOW), expected(10));
    assert_eq!(answer_with(&["x-other", "", narrow], WINDOW), expected(9));
    assert_eq!(answer_with(&[], WINDOW), Ok(None));
}

#[test]
fn an_offer_that_breaks_a_rule_is_declined() {
    for parameters in [
        "unknown",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        "server_max_window_bits=9.0",
        "server_max_window_bits=100",
        "client_max_window_bits=7",
        "client_max_window_bits=+9",
        "server_no_context_takeover=true",
        "client_no_context_takeover=1",
        "client_no_context_takeover; client_no_context_takeover",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits=10; server_max_window_bits=10",
        "Client_Max_Window_Bits",
    ] {
        let offer = format!("permessage-deflate; {parameters}");
        assert_eq!(answer(&offer), Ok(None), "{offer}");
    }
    for name in ["x-webkit-deflate-frame", "permessage-bzip2", "permessage-deflate2"] {
        assert_eq!(answer(name), Ok(None), "{name}");
    }
}

#[test]
fn values_may_be_quoted_and_spaces_stand_where_they_like() {
    for offer in [
        "permessage-deflate; client_max_window_bits=\"10\"",
        "permessage-deflate; client_max_window_bits=\"1\\0\"",
        "permessage-deflate; client_max_window_bits=\"\\1\\0\"",
        " permessage-deflate ;\tclient_max_window_bits = 10 ",
        ", ,permessage-deflate;client_max_window_bits=10,,",
    ] {
        assert_eq!(answer(offer), Ok(Some("; client_max_window_bits=10".into())), "{offer}");
    }
    assert_eq!(answer("other; a=\"x\\,y\""), Err(Malformed), "not a token in the quotes");
}

#[test]
fn what_is_no_list_of_extensions_fails_the_handshake() {
    for value in [
        ";",
        "=",
        "permessage-deflate;",
        "permessage-deflate; ;",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; =10",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate; client_max_window_bits=\"\"",
        "permessage-deflate; client_max_window_bits=\"10\"x",
        "permessage-deflate; client_max_window_bits=\"1 0\"",
        "permessage-deflate; client_max_window_bits=10=10",
        "permessage-deflate; client_max_window_bits=\"10\\",
        "permessage-deflate, (comment)",
        "p\u{e9}rmessage",
    ] {
        assert_eq!(answer(value), Err(Malformed), "{value}");
    }
    // Also behind an offer that could have been met.
    assert_eq!(answer_with(&["permessage-deflate", "@"], WINDOW), Err(Malformed));
}
