use super::fuzz::{check_from_json, check_to_json};
use super::{DEPTH_MAX, Fault, MsgpackError, binary, from_json, to_json};
use crate::proto::cuts::Seeded;
use crate::proto::json::{Fault as JsonFault, JsonError};

fn packed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    from_json(text.as_bytes(), &mut out).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    out
}

fn unpacked(bytes: &[u8]) -> Result<String, MsgpackError> {
    let mut out = Vec::new();
    to_json(bytes, &mut out, usize::MAX).map(|()| String::from_utf8(out).unwrap())
}

/// JSON, the MessagePack of it, and the JSON of that.
const PAIRS: &[(&str, &[u8], &str)] = &[
    ("null", b"\xc0", "null"),
    (" true ", b"\xc3", "true"),
    ("false", b"\xc2", "false"),
    // Integers, each form at both of its ends.
    ("0", b"\x00", "0"),
    ("127", b"\x7f", "127"),
    ("128", b"\xcc\x80", "128"),
    ("255", b"\xcc\xff", "255"),
    ("256", b"\xcd\x01\x00", "256"),
    ("65535", b"\xcd\xff\xff", "65535"),
    ("65536", b"\xce\x00\x01\x00\x00", "65536"),
    ("4294967295", b"\xce\xff\xff\xff\xff", "4294967295"),
    ("4294967296", b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "4294967296"),
    ("18446744073709551615", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
    ("-1", b"\xff", "-1"),
    ("-32", b"\xe0", "-32"),
    ("-33", b"\xd0\xdf", "-33"),
    ("-128", b"\xd0\x80", "-128"),
    ("-129", b"\xd1\xff\x7f", "-129"),
    ("-32768", b"\xd1\x80\x00", "-32768"),
    ("-32769", b"\xd2\xff\xff\x7f\xff", "-32769"),
    ("-2147483648", b"\xd2\x80\x00\x00\x00", "-2147483648"),
    ("-2147483649", b"\xd3\xff\xff\xff\xff\x7f\xff\xff\xff", "-2147483649"),
    ("-9223372036854775808", b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
    // Floats.
    ("1.5", b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"),
    ("1.0", b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "1.0"),
    ("1e2", b"\xcb\x40\x59\x00\x00\x00\x00\x00\x00", "100.0"),
    ("-0.0", b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00", "-0.0"),
    ("-0", b"\xcb\x80\x00\x00\x00\x00\x00\x00\x00", "-0.0"),
    ("0e999", b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00", "0.0"),
    ("5e-324", b"\xcb\x00\x00\x00\x00\x00\x00\x00\x01", "5e-324"),
    // Numbers that neither can hold keep their digits.
    ("18446744073709551616", b"\xc7\x14\x4a18446744073709551616", "18446744073709551616"),
    ("-9223372036854775809", b"\xc7\x14\x4a-9223372036854775809", "-9223372036854775809"),
    ("1e400", b"\xc7\x05\x4a1e400", "1e400"),
    ("-1E+400", b"\xc7\x07\x4a-1E+400", "-1E+400"),
    ("1e-400", b"\xc7\x06\x4a1e-400", "1e-400"),
    ("0.0001e-400", b"\xc7\x0b\x4a0.0001e-400", "0.0001e-400"),
    // Strings.
    (r#""""#, b"\xa0", r#""""#),
    (r#""\"\\\/\b\f\n\r\t""#, b"\xa8\"\\/\x08\x0c\n\r\t", r#""\"\\/\u0008\u000c\n\r\t""#),
    (r#""\u20ac\uD83E\udd80""#, b"\xa7\xe2\x82\xac\xf0\x9f\xa6\x80", "\"\u{20ac}\u{1f980}\""),
    (r#""\ud800""#, b"\xd7\x4a\"\\ud800\"", r#""\ud800""#),
    (r#""\udc00\ud800""#, b"\xc7\x0e\x4a\"\\udc00\\ud800\"", r#""\udc00\ud800""#),
    // Containers.
    ("[ ]", b"\x90", "[]"),
    ("{ }", b"\x80", "{}"),
    (r#"{"a":[1,{}],"a":2}"#, b"\x82\xa1a\x92\x01\x80\xa1a\x02", r#"{"a":[1,{}],"a":2}"#),
    (r#"{"\ud800":1}"#, b"\x81\xd7\x4a\"\\ud800\"\x01", r#"{"\ud800":1}"#),
    // Binary values.
    (r#"{"$bin":""}"#, b"\xc4\x00", r#"{"$bin":""}"#),
    (r#"{"$bin":"AA=="}"#, b"\xc4\x01\x00", r#"{"$bin":"AA=="}"#),
    (r#" { "$bin" : "AAE=" } "#, b"\xc4\x02\x00\x01", r#"{"$bin":"AAE="}"#),
    (r#"{"$bin":"\/\/\/\/"}"#, b"\xc4\x03\xff\xff\xff", r#"{"$bin":"////"}"#),
    (r#"{"\u0024bin":"\u0041A\u003d="}"#, b"\xc4\x01\x00", r#"{"$bin":"AA=="}"#),
    (r#"[{"$ext":[5,"aA=="]}]"#, b"\x91\xd4\x05h", r#"[{"$ext":[5,"aA=="]}]"#),
    (r#"{"$ext":[-128 , "aGlq"]}"#, b"\xc7\x03\x80hij", r#"{"$ext":[-128,"aGlq"]}"#),
    (r#"{"$ext":[0,""]}"#, b"\xc7\x00\x00", r#"{"$ext":[0,""]}"#),
];

#[test]
fn each_value_has_one_word_in_messagepack_and_comes_back() {
    for (text, bytes, back) in PAIRS {
        assert_eq!(packed(text), *bytes, "{text}");
        assert_eq!(unpacked(bytes).as_deref(), Ok(*back), "{text}");
        check_from_json(text);
        check_to_json(bytes);
    }
}

#[test]
fn what_is_almost_a_binary_value_is_an_object() {
    for text in [
        r#"{"$bin":"A"}"#,
        r#"{"$bin":"AA"}"#,
        r#"{"$bin":"AB=="}"#,
        r#"{"$bin":"AA==AA=="}"#,
        r#"{"$bin":"A\\A=="}"#,
        r#"{"$BIN":"AA=="}"#,
        r#"{"$bin":"AA==","a":1}"#,
        r#"{"a":1,"$bin":"AA=="}"#,
        r#"{"$bin":["AA=="]}"#,
        r#"{"$bin":1}"#,
        r#"{"$bin":{}}"#,
        r#"{"$ext":"AA=="}"#,
        r#"{"$ext":["AA==",5]}"#,
        r#"{"$ext":[128,"AA=="]}"#,
        r#"{"$ext":[-129,"AA=="]}"#,
        r#"{"$ext":[-0,"AA=="]}"#,
        r#"{"$ext":[5.0,"AA=="]}"#,
        // That one is JSON's own.
        r#"{"$ext":[74,"AA=="]}"#,
    ] {
        let packed = packed(text);
        assert_eq!(packed[0] & 0xf0, 0x80, "{text} is not a map");
        check_from_json(text);
        let mut bytes = Vec::new();
        assert!(!binary::read_bin(text.as_bytes(), &mut bytes) && bytes.is_empty(), "{text}");
    }
    for text in [r#"{"$ext":[05,"AA=="]}"#, r#"{"$ext":[--5,"AA=="]}"#, r#"{"$bin":"AA=="#] {
        assert!(from_json(text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
    }
}

#[test]
fn binary_values_of_every_length_come_back_byte_for_byte() {
    let mut seeded = Seeded::new(1);
    for length in (0..=300).chain([65_535, 65_536, 100_000]) {
        let bytes = seeded.bytes(length);
        let mut text = Vec::new();
        binary::write_bin(&mut text, &bytes);
        assert_eq!(text.len(), binary::bin_bytes(length));
        let mut read = b"before".to_vec();
        assert!(binary::read_bin(&text, &mut read));
        assert_eq!(&read[6..], bytes);

        let packed = packed(std::str::from_utf8(&text).unwrap());
        assert!(packed.ends_with(&bytes) && packed.len() - length <= 5, "{length}");
        assert_eq!(unpacked(&packed).unwrap().into_bytes(), text);

        let escaped = String::from_utf8(text).unwrap().replace('/', "\\/");
        read.clear();
        assert!(binary::read_bin(escaped.as_bytes(), &mut read));
        assert_eq!(read, bytes);
    }
}

#[test]
fn a_signed_form_of_what_is_not_negative_and_a_float_of_32_bits_are_understood() {
    for (bytes, text) in [
        (&b"\xd0\x05"[..], "5"),
        (b"\xd1\x7f\xff", "32767"),
        (b"\xd2\x00\x00\x00\x00", "0"),
        (b"\xd3\x00\x00\x00\x00\x00\x00\x00\x01", "1"),
        (b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01", "1"),
        (b"\xca\x3f\x80\x00\x00", "1.0"),
        // What the bits say, not the shortest digits that would give them again.
        (b"\xca\x3d\xcc\xcc\xcd", "0.10000000149011612"),
        (b"\xd4\x4a5", "5"),
        (b"\xc7\x06\x4a\"\\u00", ""),
        (b"\xda\x00\x01a", "\"a\""),
        (b"\xdd\x00\x00\x00\x01\xc0", "[null]"),
        (b"\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x01a\xc6\x00\x00\x00\x00", r#"{"a":{"$bin":""}}"#),
    ] {
        if text.is_empty() {
            assert!(unpacked(bytes).is_err());
        } else {
            assert_eq!(unpacked(bytes).as_deref(), Ok(text));
        }
        check_to_json(bytes);
    }
}

/// MessagePack that is none, or that JSON has no word for: where, and why.
const BAD: &[(&[u8], usize, Fault)] = &[
    (b"", 0, Fault::TooShort),
    (b"\x01\x02", 1, Fault::TrailingBytes),
    (b"\x90\xc0", 1, Fault::TrailingBytes),
    (b"\xc1", 0, Fault::NeverUsed),
    (b"\x92\x01\xc1", 2, Fault::NeverUsed),
    (b"\xa1\xff", 0, Fault::NotUtf8),
    (b"\x81\xa2\xed\xa0\x01", 1, Fault::NotUtf8),
    (b"\xa6\xed\xa0\x80\xed\xb0\x80", 0, Fault::NotUtf8),
    (b"\x81\x01\x02", 1, Fault::NameNotStr),
    (b"\x82\xa1a\x01\xc4\x01a\x02", 4, Fault::NameNotStr),
    (b"\x81\xd4\x4a5\x01", 1, Fault::NameNotStr),
    (b"\x81\xd4\x05a\x01", 1, Fault::NameNotStr),
    (b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", 0, Fault::NotFinite),
    (b"\x91\xcb\xff\xf0\x00\x00\x00\x00\x00\x00", 1, Fault::NotFinite),
    (b"\xca\x7f\x80\x00\x00", 0, Fault::NotFinite),
    (b"\xd4\x4aa", 0, Fault::NotJsonText),
    (b"\xc7\x00\x4a", 0, Fault::NotJsonText),
    (b"\xd6\x4anull", 0, Fault::NotJsonText),
    (b"\xd5\x4a1 ", 0, Fault::NotJsonText),
    (b"\xd5\x4a01", 0, Fault::NotJsonText),
    (b"\xc7\x03\x4a\"\xff\"", 0, Fault::NotJsonText),
    (b"\xd6\x4a\"\"\"\"", 0, Fault::NotJsonText),
];

#[test]
fn what_json_cannot_say_is_refused_where_it_stands() {
    for (bytes, at, fault) in BAD {
        assert_eq!(unpacked(bytes), Err(MsgpackError { at: *at, fault: *fault }), "{bytes:x?}");
        check_to_json(bytes);
    }
}

#[test]
fn whatever_is_cut_off_is_too_short_and_says_so_at_its_end() {
    for (_, bytes, _) in PAIRS {
        for end in 0..bytes.len() {
            let error = MsgpackError { at: end, fault: Fault::TooShort };
            assert_eq!(unpacked(&bytes[..end]), Err(error), "{:x?}", &bytes[..end]);
        }
    }
    let mut out = b"before".to_vec();
    let text = br#"{"a":[1,"b",{"$bin":"AA=="}],"c":{"$ext":[1,"AA=="]}}"#;
    for end in 0..text.len() {
        let error = JsonError { at: end, fault: JsonFault::TooShort };
        assert_eq!(from_json(&text[..end], &mut out), Err(error));
        assert_eq!(out, b"before");
    }
}

#[test]
fn what_is_claimed_and_never_comes_costs_nothing() {
    for bytes in [&b"\xdd\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"] {
        let mut out = Vec::new();
        let error = to_json(bytes, &mut out, usize::MAX).unwrap_err();
        assert_eq!(error.fault, Fault::TooShort);
        assert!(out.capacity() < 64);
    }
}

#[test]
fn nesting_is_followed_to_its_bound_and_no_further() {
    let nested =
        |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
    let mut out = Vec::new();
    for (inner, depth) in [("", 0), (r#"{"$bin":"AA=="}"#, 1), (r#"{"$ext":[5,"AA=="]}"#, 2)] {
        let text = nested(DEPTH_MAX - depth, inner);
        let bytes = packed(&text);
        assert_eq!(unpacked(&bytes), Ok(text));
        // An array around it: too deep both ways.
        let bytes = [&[0x91], bytes.as_slice()].concat();
        assert_eq!(unpacked(&bytes).unwrap_err().fault, Fault::TooDeep);
        let text = nested(DEPTH_MAX + 1 - depth, inner);
        let error = from_json(text.as_bytes(), &mut out).unwrap_err();
        let opened = text[..=error.at].matches(['[', '{']).count();
        assert_eq!((error.fault, opened), (JsonFault::TooDeep, DEPTH_MAX + 1));
    }
    let endless = vec![0x81; 1 << 20];
    assert_eq!(unpacked(&endless).unwrap_err().fault, Fault::NameNotStr);
    assert_eq!(unpacked(&vec![0x91; 1 << 20]).unwrap_err().at, DEPTH_MAX);
}

#[test]
fn heads_grow_with_what_is_in_them_wherever_they_stand() {
    for count in [15, 16, 17, 255, 256, 65_535, 65_536] {
        let ones = vec!["1"; count].join(",");
        let bytes = packed(&format!("[{ones}]"));
        let head = match count {
            0..16 => vec![0x90 | count as u8],
            16..65_536 => [&[0xdc], &(count as u16).to_be_bytes()[..]].concat(),
            _ => [&[0xdd], &(count as u32).to_be_bytes()[..]].concat(),
        };
        assert_eq!(bytes, [head, vec![1; count]].concat());
        assert_eq!(unpacked(&bytes), Ok(format!("[{ones}]")));
    }
    // Large in small in large, side by side and at the very end; objects, too.
    let sixteen = vec!["1"; 16].join(",");
    let members = (0..17).map(|index| format!("\"{index}\":[{sixteen}]"));
    let text = format!(
        "[[[{sixteen}],{{{}}}],{sixteen},[],[{sixteen}]]",
        members.collect::<Vec<_>>().join(",")
    );
    check_from_json(&text);
    assert_eq!(unpacked(&packed(&text)), Ok(text));
}

/// Any JSON value.
fn any_value(seeded: &mut Seeded, depth: usize) -> String {
    let kinds = if depth == 0 { 6 } else { 9 };
    match seeded.below(kinds) {
        0 => ["null", "true", "false", "-0", "0.1", "1e999", "-1e-999"][seeded.below(7)].to_owned(),
        1 => (seeded.next() >> seeded.below(64)).to_string(),
        2 => ((seeded.next() as i64) >> seeded.below(64)).to_string(),
        3 => format!("{}{}", seeded.next(), seeded.next()),
        4 => format!("{:?}", f64::from_bits(seeded.next() >> 2)),
        5 => ["\"\"", "\"\\ud834\\udd1e \"", "\"\\udd1e\"", r#"{"$bin":"AAEC"}"#, "\"\u{e9}\\n\""]
            [seeded.below(5)]
        .to_owned(),
        kind => {
            let most = [4, 4, 4, 40][seeded.below(4)];
            let count = seeded.below(most);
            let inner = if count > 4 { 0 } else { depth - 1 };
            let values = (0..count).map(|_| any_value(seeded, inner));
            if kind == 6 {
                return format!("[{}]", values.collect::<Vec<_>>().join(" , "));
            }
            let members =
                values.enumerate().map(|(index, value)| format!("\"{}\" : {value}", index % 7));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    }
}

#[test]
fn any_value_is_the_same_value_there_and_back_again() {
    for seed in 0..2_000 {
        let text = any_value(&mut Seeded::new(seed), 8);
        // Shown when the check below fails, for a fixture.
        println!("seed {seed}: {text}");
        check_from_json(&text);
    }
}

#[test]
fn a_bound_on_the_text_is_met_to_the_byte() {
    let bytes = packed(r#"{"a":"\u0001\u0002","b":[{"$bin":"AAEC"}]}"#);
    let text = unpacked(&bytes).unwrap();
    for bound in 0..text.len() {
        let mut out = b"before".to_vec();
        let error = to_json(&bytes, &mut out, bound).unwrap_err();
        assert_eq!((error.fault, out.as_slice()), (Fault::TooLong, &b"before"[..]), "{bound}");
    }
    let mut out = Vec::new();
    assert_eq!(to_json(&bytes, &mut out, text.len()), Ok(()));
}
