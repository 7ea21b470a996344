//! Both directions against rmpv and serde_json, and against each other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rmpv::Value;
use serde_json::value::RawValue;

use super::{DEPTH_MAX, EXT_JSON, Fault, from_json, to_json};
use crate::proto::json::{self, Fault as JsonFault};

/// Takes `data` once for JSON and once for MessagePack.
///
/// # Panics
/// When rmpv and serde_json understand something else, when there and back again is something
/// else, or when one of them is refused that need not be.
pub fn msgpack(data: &[u8]) {
    check_from_json(&String::from_utf8_lossy(data));
    check_to_json(data);
}

pub(super) fn check_from_json(text: &str) {
    let mut packed = b"before".to_vec();
    let result = from_json(text.as_bytes(), &mut packed);
    let packed = packed.split_off(b"before".len());
    // The scanner's verdict, but for some levels of nesting more.
    match (result, json::document(text.as_bytes())) {
        (Err(error), Err(scanned)) if scanned.fault == JsonFault::TooDeep => {
            assert!(error.at >= scanned.at);
        }
        (Ok(()), Err(scanned)) => assert_eq!(scanned.fault, JsonFault::TooDeep),
        (result, scanned) => assert_eq!(result, scanned),
    }
    if result.is_err() {
        assert!(packed.is_empty());
        return;
    }
    assert_eq!(read(&packed).as_ref(), Some(&meaning(text)), "{text}");

    // There and back again: JSON of the same value, which is the same MessagePack.
    let mut back = Vec::new();
    assert_eq!(to_json(&packed, &mut back, usize::MAX), Ok(()));
    let back = String::from_utf8(back).expect("JSON is text");
    assert_eq!(meaning(&back), meaning(text));
    let mut again = Vec::new();
    assert_eq!(from_json(back.as_bytes(), &mut again), Ok(()));
    assert_eq!(again, packed);
}

pub(super) fn check_to_json(packed: &[u8]) {
    let mut text = b"before".to_vec();
    let result = to_json(packed, &mut text, usize::MAX);
    let text = String::from_utf8(text.split_off(b"before".len())).expect("JSON is text");
    let theirs = read(packed);
    match result {
        Ok(()) => {
            // Some levels more than the scanner takes.
            if let Err(error) = json::document(text.as_bytes()) {
                assert_eq!(error.fault, JsonFault::TooDeep);
            }
            let theirs = theirs.expect("it is MessagePack");
            assert_eq!(meaning(&text), meaning(&text_of(&theirs)), "{text}");
            check_bound(packed, &text);
        }
        Err(error) => {
            assert!(text.is_empty());
            assert!(error.at <= packed.len());
            if error.fault == Fault::NeverUsed {
                // To rmpv it is nil.
                assert_eq!(packed[error.at], 0xc1);
            } else if let Some(theirs) = theirs {
                let what_is_wrong = wrong(&theirs, 0);
                assert!(what_is_wrong.contains(&error.fault), "{error:?} {what_is_wrong:?}");
            }
            if error.fault == Fault::TooShort {
                assert_eq!(error.at, packed.len());
            }
        }
    }
}

/// The bound is met to the byte.
fn check_bound(packed: &[u8], text: &str) {
    let mut out = Vec::new();
    assert_eq!(to_json(packed, &mut out, text.len()), Ok(()));
    assert_eq!(out, text.as_bytes());
    out.clear();
    let error = to_json(packed, &mut out, text.len() - 1).expect_err("a byte too long");
    assert_eq!((error.fault, out.len()), (Fault::TooLong, 0));
}

/// What rmpv reads, if that is one value and nothing else.
fn read(mut packed: &[u8]) -> Option<Value> {
    let value = rmpv::decode::read_value_with_max_depth(&mut packed, DEPTH_MAX * 8).ok()?;
    packed.is_empty().then_some(value)
}

/// What a JSON text is in MessagePack: the rules once more, on top of serde_json.
fn meaning(text: &str) -> Value {
    let text = text.trim_ascii();
    match text.as_bytes()[0] {
        b'n' => Value::Nil,
        b't' => true.into(),
        b'f' => false.into(),
        b'"' => string(text),
        b'[' => {
            let values: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
            Value::Array(values.iter().map(|value| meaning(value.get())).collect())
        }
        b'{' => object(text),
        _ => number(text),
    }
}

fn string(text: &str) -> Value {
    // Half of a surrogate pair is no text, and serde_json says so.
    match serde_json::from_str::<String>(text) {
        Ok(text) => text.into(),
        Err(_) => Value::Ext(EXT_JSON, text.into()),
    }
}

fn object(text: &str) -> Value {
    let members = read_pairs(text);
    if let [(name, value)] = members.as_slice() {
        let binary = match string(name).as_str() {
            Some("$bin") => read_base64(value).map(Value::Binary),
            Some("$ext") => read_ext(value),
            _ => None,
        };
        if let Some(binary) = binary {
            return binary;
        }
    }
    Value::Map(members.iter().map(|(name, value)| (string(name), meaning(value))).collect())
}

/// The members of an object, names as they are written.
fn read_pairs(text: &str) -> Vec<(&str, &str)> {
    let mut rest = text[1..].trim_start();
    let mut pairs = Vec::new();
    while !rest.starts_with('}') {
        let name = first(&mut rest);
        rest = rest.strip_prefix(':').expect("a colon");
        pairs.push((name, first(&mut rest)));
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    pairs
}

/// The value at the front, and the whitespace around it, are cut off `rest`.
fn first<'a>(rest: &mut &'a str) -> &'a str {
    let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
    let value = stream.next().expect("a value").expect("it is JSON").get();
    *rest = rest[stream.byte_offset()..].trim_start();
    value
}

fn read_base64(value: &str) -> Option<Vec<u8>> {
    STANDARD.decode(serde_json::from_str::<String>(value).ok()?).ok()
}

fn read_ext(value: &str) -> Option<Value> {
    let parts: Vec<&RawValue> = serde_json::from_str(value).ok()?;
    let [kind, data] = parts.as_slice() else { return None };
    let kind: i8 = serde_json::from_str(kind.get()).ok().filter(|kind| *kind != EXT_JSON)?;
    // serde_json takes -0 for an integer here.
    (parts[0].get() == kind.to_string()).then_some(())?;
    Some(Value::Ext(kind, read_base64(data.get())?))
}

fn number(text: &str) -> Value {
    let as_json = || Value::Ext(EXT_JSON, text.into());
    if text.contains(['.', 'e', 'E']) || text == "-0" {
        let value: Option<f64> = serde_json::from_str(text).ok();
        let digits = text.split(['e', 'E']).next().unwrap_or_default();
        let is_zero = !digits.contains(|digit| matches!(digit, '1'..='9'));
        return value.filter(|it| *it != 0.0 || is_zero).map_or_else(as_json, Value::F64);
    }
    let value: Option<i128> = text.parse().ok();
    let value = value.and_then(|value| {
        let unsigned = u64::try_from(value).map(Value::from);
        unsigned.or_else(|_| i64::try_from(value).map(Value::from)).ok()
    });
    value.unwrap_or_else(as_json)
}

/// What JSON calls `value`, in which nothing is wrong.
fn text_of(value: &Value) -> String {
    let list = |texts: Vec<String>| texts.join(",");
    match value {
        Value::Nil => "null".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::F32(value) => text_of(&Value::F64((*value).into())),
        Value::F64(value) => serde_json::to_string(value).expect("a number"),
        Value::String(text) => serde_json::to_string(text.as_str().expect("text")).expect("text"),
        Value::Binary(bytes) => format!("{{\"$bin\":\"{}\"}}", STANDARD.encode(bytes)),
        Value::Array(values) => format!("[{}]", list(values.iter().map(text_of).collect())),
        Value::Map(pairs) => {
            let pair = |(key, value): &_| format!("{}:{}", text_of(key), text_of(value));
            format!("{{{}}}", list(pairs.iter().map(pair).collect()))
        }
        Value::Ext(EXT_JSON, text) => String::from_utf8(text.clone()).expect("text"),
        Value::Ext(kind, data) => {
            format!("{{\"$ext\":[{kind},\"{}\"]}}", STANDARD.encode(data))
        }
    }
}

/// Everything that JSON cannot say in `value`, which is so deep in it.
fn wrong(value: &Value, depth: usize) -> Vec<Fault> {
    let deep = |more: usize| if depth + more > DEPTH_MAX { vec![Fault::TooDeep] } else { vec![] };
    match value {
        Value::F32(value) if !value.is_finite() => vec![Fault::NotFinite],
        Value::F64(value) if !value.is_finite() => vec![Fault::NotFinite],
        Value::String(text) if text.as_str().is_none() => vec![Fault::NotUtf8],
        Value::Ext(EXT_JSON, text) if !is_json_text(text) => vec![Fault::NotJsonText],
        Value::Ext(EXT_JSON, _) => vec![],
        Value::Ext(..) => deep(2),
        Value::Binary(_) => deep(1),
        Value::Array(values) => {
            let inside = values.iter().flat_map(|value| wrong(value, depth + 1));
            deep(1).into_iter().chain(inside).collect()
        }
        Value::Map(pairs) => {
            let mut all = deep(1);
            for (key, value) in pairs {
                match key {
                    Value::String(_) => all.extend(wrong(key, depth + 1)),
                    Value::Ext(EXT_JSON, text) if text.starts_with(b"\"") => {
                        all.extend(wrong(key, depth + 1));
                    }
                    _ => all.push(Fault::NameNotStr),
                }
                all.extend(wrong(value, depth + 1));
            }
            all
        }
        _ => vec![],
    }
}

fn is_json_text(bytes: &[u8]) -> bool {
    // serde_json looks at escapes only where it needs the text.
    matches!(bytes.first(), Some(b'"' | b'-' | b'0'..=b'9'))
        && bytes.last().is_some_and(|byte| !byte.is_ascii_whitespace())
        && serde_json::from_slice::<&RawValue>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_and_its_mutations_are_what_rmpv_and_serde_json_say() {
        crate::fuzz::replay("msgpack", super::msgpack);
    }
}
