use super::*;
use crate::proto::cuts::Seeded;

const GOOD: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "10",
    "1e400",
    "1E+2",
    "1.5e-3",
    "0e0",
    "123456789012345678901234567890",
    "\"\"",
    r#""\"\\\/\b\f\n\r\t\u00e9""#,
    r#""\ud800""#,
    "\"\u{7f}\u{20ac}\u{1f980}\"",
    "[]",
    "[ ]",
    "{}",
    "{ }",
    "[1,2 , 3]",
    r#"{"a":1,"a":2}"#,
    r#"{"":{"":[{}]}}"#,
    " \t\r\n[ { \"a\" : [ ] } ] \n",
    r#"["12345678","1234567","123456789","\\","12345678\""]"#,
];

const BAD: &[(&str, Fault)] = &[
    ("", Fault::TooShort),
    (" ", Fault::TooShort),
    ("nul", Fault::TooShort),
    ("nulL", Fault::UnexpectedByte),
    ("True", Fault::UnexpectedByte),
    ("NaN", Fault::UnexpectedByte),
    ("Infinity", Fault::UnexpectedByte),
    ("-", Fault::TooShort),
    ("-a", Fault::UnexpectedByte),
    ("01", Fault::TrailingBytes),
    ("-01", Fault::TrailingBytes),
    ("1.", Fault::TooShort),
    (".5", Fault::UnexpectedByte),
    ("+1", Fault::UnexpectedByte),
    ("1.e5", Fault::UnexpectedByte),
    ("1e", Fault::TooShort),
    ("1e+", Fault::TooShort),
    ("0x10", Fault::TrailingBytes),
    ("\"", Fault::TooShort),
    ("\"abc", Fault::TooShort),
    ("\"a\nb\"", Fault::ControlInString),
    ("\"12345678\0\"", Fault::ControlInString),
    ("\"\u{1f}\"", Fault::ControlInString),
    (r#""\x""#, Fault::BadEscape),
    (r#""\u12g4""#, Fault::BadEscape),
    (r#""\u12""#, Fault::TooShort),
    (r#""\"#, Fault::TooShort),
    ("'a'", Fault::UnexpectedByte),
    ("[", Fault::TooShort),
    ("[1", Fault::TooShort),
    ("[1,", Fault::TooShort),
    ("[1,]", Fault::UnexpectedByte),
    ("[,1]", Fault::UnexpectedByte),
    ("[1 2]", Fault::UnexpectedByte),
    ("[1}", Fault::UnexpectedByte),
    ("{\"a\":1]", Fault::UnexpectedByte),
    ("{", Fault::TooShort),
    ("{\"a\"", Fault::TooShort),
    ("{\"a\":", Fault::TooShort),
    ("{\"a\"}", Fault::UnexpectedByte),
    ("{\"a\":1,}", Fault::UnexpectedByte),
    ("{a:1}", Fault::UnexpectedByte),
    ("{1:1}", Fault::UnexpectedByte),
    ("{,}", Fault::UnexpectedByte),
    ("{\"a\":1 \"b\":2}", Fault::UnexpectedByte),
    ("1 2", Fault::TrailingBytes),
    ("{}x", Fault::TrailingBytes),
    ("[]]", Fault::TrailingBytes),
    ("\u{feff}1", Fault::UnexpectedByte),
    ("\u{a0}1", Fault::UnexpectedByte),
    ("/* */1", Fault::UnexpectedByte),
];

/// The same verdict by way of the members, for texts that are objects.
fn by_members(text: &[u8]) -> Option<Result<(), JsonError>> {
    members(text).map(|mut members| members.try_for_each(|member| member.map(|_| ())))
}

#[test]
fn json_passes() {
    for text in GOOD {
        assert_eq!(document(text.as_bytes()), Ok(()), "{text}");
        assert!(by_members(text.as_bytes()).is_none_or(|verdict| verdict.is_ok()), "{text}");
    }
}

#[test]
fn what_is_not_json_is_named() {
    for (text, fault) in BAD {
        let error = document(text.as_bytes()).expect_err(text);
        assert_eq!(error.fault, *fault, "{text}");
        assert!(by_members(text.as_bytes()).is_none_or(|verdict| verdict.is_err()), "{text}");
    }
}

#[test]
fn a_text_that_is_cut_is_too_short_everywhere() {
    let text = r#"{"type":"x","n":[-1.5e3,{"\u00e9\\":[null,true,false,""]}],"s":"12345678é"}"#;
    for end in 0..text.len() {
        let error = document(&text.as_bytes()[..end]).expect_err("cut");
        assert_eq!(error, JsonError::new(Fault::TooShort, end), "{end}");
    }
    assert_eq!(document(text.as_bytes()), Ok(()));
}

#[test]
fn nesting_has_a_bound_and_no_stack() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[[{\"a\":", "}]]")] {
        let each = open.matches(['[', '{']).count();
        let depth = JSON_DEPTH_MAX / each;
        assert_eq!(document(nested(open, close, depth).as_bytes()), Ok(()), "{open}");
        let deeper = nested(open, close, depth + 1);
        assert_eq!(document(deeper.as_bytes()).map_err(|error| error.fault), Err(Fault::TooDeep));
    }
    let error = document(&[b'['; 1 << 20]).expect_err("deep");
    assert_eq!(error, JsonError::new(Fault::TooDeep, JSON_DEPTH_MAX));
    // An empty one inside the deepest is one too deep as well.
    let empty = nested("[", "]", JSON_DEPTH_MAX).replace('1', "[]");
    assert_eq!(document(empty.as_bytes()).map_err(|error| error.fault), Err(Fault::TooDeep));
}

#[test]
fn a_special_byte_is_found_at_every_place_of_a_string() {
    for length in 0..40 {
        for at in 0..length {
            for special in [b'"', b'\\', 0, 0x1f] {
                let mut bytes = vec![b'a'; length];
                bytes[at] = special;
                assert_eq!(plain_bytes(&bytes), at, "{special} at {at} of {length}");
            }
            // Neighbours of the special ones, and bytes with the top bit set, are plain.
            for plain in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0x9f, 0xa2, 0xdc, 0xff] {
                let mut bytes = vec![b'a'; length];
                bytes[at] = plain;
                assert_eq!(plain_bytes(&bytes), length, "{plain} at {at} of {length}");
            }
        }
    }
}

#[test]
fn every_pair_of_bytes_is_judged_one_by_one_alike() {
    for pair in 0..=u16::MAX {
        let [a, b] = pair.to_be_bytes();
        let bytes = [a, b, b'a', b'a', b'a', b'a', a, b];
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        assert_eq!(plain_bytes(&bytes), bytes.iter().position(special).unwrap_or(8), "{bytes:x?}");
    }
}

#[test]
fn members_are_given_as_they_are_written() {
    let text = " { \"a\" : [1, 2] ,\"b\\n\":\"x\" , \"\":-0.0} ";
    let members: Result<Vec<_>, _> = members(text.as_bytes()).unwrap().collect();
    let members: Vec<_> = members.unwrap().iter().map(|it| (it.key, it.value)).collect();
    let expected: [(&[u8], &[u8]); 3] =
        [(b"\"a\"", b"[1, 2]"), (b"\"b\\n\"", b"\"x\""), (b"\"\"", b"-0.0")];
    assert_eq!(members, expected);
}

#[test]
fn nothing_comes_after_an_error() {
    let mut members = members(b"{\"a\":1,x}").unwrap();
    assert!(members.next().unwrap().is_ok());
    assert!(members.next().unwrap().is_err());
    assert!(members.next().is_none());
}

#[test]
fn only_an_object_has_members() {
    for text in ["", "[]", "1", "\"{}\"", "null"] {
        assert!(members(text.as_bytes()).is_none(), "{text}");
    }
}

#[test]
fn a_name_is_known_however_it_is_escaped() {
    let named = |key: &str, name: &str| Member { key: key.as_bytes(), value: b"" }.is_named(name);
    for key in [r#""type""#, r#""\u0074ype""#, r#""\u0074\u0079\u0070\u0065""#] {
        assert!(named(key, "type"), "{key}");
    }
    for key in [r#""types""#, r#""typ""#, r#""\type""#, r#""typ\u00e9""#, r#""\u0074""#, r#""""#] {
        assert!(!named(key, "type"), "{key}");
    }
    assert!(named(r#""\/\\\"\n""#, "/\\\"\n"));
}

#[test]
fn a_written_string_reads_back_as_it_was() {
    let all: String = (0..0x100_u32).filter_map(char::from_u32).collect();
    for text in ["", "plain", "\"quoted\"", "back\\slash", "\u{20ac}\u{1f980}", &all] {
        let mut out = Vec::new();
        write_string(&mut out, text);
        assert_eq!(document(&out), Ok(()), "{text:?}");
        let value = simd_json::to_tape(&mut out).unwrap().0[0];
        assert_eq!(value, simd_json::Node::String(text));
    }
}

#[test]
fn a_number_is_written_as_the_standard_library_does() {
    for number in [0, 1, 9, 10, 99, 100, 1_685_440_800, u64::MAX - 1, u64::MAX] {
        assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
    }
}

/// Random JSON without the things simd-json takes no part in: numbers out of range and halves of
/// surrogate pairs.
fn random_json(seeded: &mut Seeded, depth: usize, out: &mut String) {
    const SPACES: [&str; 4] = ["", "", " ", "\n\t"];
    const STRINGS: [&str; 5] = ["", "a", "long enough for words", "\\u00e9\\\\", "\\\"\u{20ac}"];
    out.push_str(SPACES[seeded.below(4)]);
    match seeded.below(if depth == 0 { 6 } else { 8 }) {
        0 => out.push_str("null"),
        1 => out.push_str("true"),
        2 => out.push_str("-12.5e-2"),
        3 => out.push_str(&seeded.below(1000).to_string()),
        4 | 5 => out.push_str(&format!("\"{}\"", STRINGS[seeded.below(5)])),
        container => {
            out.push(if container == 6 { '[' } else { '{' });
            for index in 0..seeded.below(4) {
                if index > 0 {
                    out.push(',');
                }
                if container == 7 {
                    out.push_str(&format!("\"{}\":", STRINGS[seeded.below(5)]));
                }
                random_json(seeded, depth - 1, out);
            }
            out.push(if container == 6 { ']' } else { '}' });
        }
    }
    out.push_str(SPACES[seeded.below(4)]);
}

#[test]
fn random_json_and_its_damages_are_judged_as_simd_json_does() {
    let mut bad = 0;
    for seed in 0..4000 {
        let mut seeded = Seeded::new(seed);
        let mut text = String::new();
        random_json(&mut seeded, 5, &mut text);
        let mut bytes = text.into_bytes();
        assert_eq!(document(&bytes), Ok(()), "seed {seed}");
        for _ in 0..seeded.below(3) {
            let at = seeded.below(bytes.len());
            bytes[at] = b"\"\\[]{},:0-e.u \nt"[seeded.below(16)];
        }
        let ours = document(&bytes);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let theirs =
            std::str::from_utf8(&bytes.clone()).is_ok() && simd_json::to_tape(&mut bytes).is_ok();
        if shown.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        bad += usize::from(ours.is_err());
        assert_eq!(ours.is_ok(), theirs, "seed {seed}: {shown}");
    }
    assert!(bad > 100, "the damage must matter");
}
