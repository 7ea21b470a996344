use super::*;
use crate::proto::cuts::{Cut, Seeded};

const SIMPLE: &str = "GET /ws?token=a%20b HTTP/1.1\r\nHost: example.org\r\nX-One: 1\r\n\r\n";

fn parsed<T>(bytes: &[u8], look: impl FnOnce(&Request<'_>) -> T) -> Result<Option<T>, Refusal> {
    let mut slots = HeaderSlots::new();
    Ok(parse_request(bytes, &mut slots)?.as_ref().map(look))
}

fn refused(head: &str) -> Refusal {
    parsed(head.as_bytes(), |_| ()).expect_err(head)
}

fn body_of(headers: &str) -> Result<(), Refusal> {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    parsed(head.as_bytes(), |request| request.refuse_body()).unwrap().unwrap()
}

#[test]
fn a_request_is_read() {
    let bytes = [SIMPLE.as_bytes(), b"\x81\x80frame"].concat();
    parsed(&bytes, |request| {
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, "/ws");
        assert_eq!(request.query, Some("token=a%20b"));
        assert_eq!(request.minor_version, 1);
        assert_eq!(request.head_bytes, SIMPLE.len());
        assert_eq!(request.header("HOST"), Some("example.org"));
        assert_eq!(request.header("x-none"), None);
    })
    .unwrap()
    .unwrap();
}

#[test]
fn a_head_is_incomplete_until_its_last_byte() {
    for end in 0..SIMPLE.len() {
        assert_eq!(parsed(&SIMPLE.as_bytes()[..end], |_| ()), Ok(None), "{end}");
        assert_eq!(head_end(&SIMPLE.as_bytes()[..end], 0), None, "{end}");
    }
}

#[test]
fn the_end_of_a_head_is_found_however_it_comes() {
    for head in [SIMPLE, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"]
    {
        let stream = [head.as_bytes(), b"more\r\n\r\n\n\n"].concat();
        assert_eq!(parsed(&stream, |request| request.head_bytes), Ok(Some(head.len())));
        for cut in Cut::every(30) {
            let mut seen = Vec::new();
            let mut found = None;
            for piece in cut.pieces(&stream) {
                let from = seen.len();
                seen.extend(piece);
                found = head_end(&seen, from);
                if found.is_some() {
                    break;
                }
            }
            assert_eq!(found, Some(head.len()), "{head:?} {cut:?}");
        }
    }
}

#[test]
fn repeated_fields_are_all_seen() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nVia: one\r\nVIA:  two , Three\t\r\n\r\n";
    parsed(head.as_bytes(), |request| {
        assert_eq!(request.headers("via").collect::<Vec<_>>(), ["one", "two , Three"]);
        assert!(request.has_token("via", "three"));
        assert!(request.has_token("via", "one"));
        assert!(!request.has_token("via", "thre"));
    })
    .unwrap()
    .unwrap();
}

#[test]
fn a_target_may_have_an_authority_in_front() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/b", "/a/b", None),
        ("/?", "/", Some("")),
        ("http://host:80/ws?x", "/ws", Some("x")),
        ("HTTP://host", "/", None),
        ("ws://host?x", "/", Some("x")),
        ("/go?to=http://other/place", "/go", Some("to=http://other/place")),
        ("*", "*", None),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: host\r\n\r\n");
        parsed(head.as_bytes(), |request| {
            assert_eq!((request.path, request.query), (path, query), "{target}");
        })
        .unwrap()
        .unwrap();
    }
}

#[test]
fn what_is_not_http_is_refused_at_once() {
    // A TLS greeting, a line without a method, a fragment, a space before the colon.
    assert_eq!(parsed(b"\x16\x03\x01\x02", |_| ()).unwrap_err().status(), 400);
    assert_eq!(refused("\0").status(), 400);
    assert_eq!(refused("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n").status(), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n").status(), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n").status(), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: \x01\r\n\r\n").status(), 400);
    assert_eq!(refused("GET / HTTP/2.0\r\n\r\n"), Refusal::VersionNotSupported);
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Refusal::VersionNotSupported);
}

#[test]
fn a_host_is_named_exactly_once() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Refusal::BadRequest("no Host header"));
    assert_eq!(
        refused("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
        Refusal::BadRequest("more than one Host header")
    );
    assert_eq!(parsed(b"GET / HTTP/1.0\r\n\r\n", |request| request.minor_version), Ok(Some(0)));
}

#[test]
fn a_head_that_never_ends_is_too_large() {
    let line = [b"GET /".as_slice(), &[b'a'; REQUEST_HEAD_BYTES_MAX]].concat();
    assert_eq!(parsed(&line, |_| ()), Err(Refusal::HeadTooLarge));
    assert_eq!(parsed(&line[..REQUEST_HEAD_BYTES_MAX - 1], |_| ()), Ok(None));
    assert_eq!(parsed(&vec![b'a'; 1 << 20], |_| ()), Err(Refusal::HeadTooLarge));
    assert_eq!(parsed(&vec![b'\n'; 1 << 20], |_| ()), Err(Refusal::HeadTooLarge));
}

#[test]
fn a_head_of_exactly_the_maximum_is_taken_and_one_byte_more_is_not() {
    let padded = |bytes: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nCookie: \r\n\r\n";
        head.replace("Cookie: ", &format!("Cookie: {}", "c".repeat(bytes - head.len())))
    };
    let at_max = padded(REQUEST_HEAD_BYTES_MAX);
    assert_eq!(
        parsed(at_max.as_bytes(), |request| request.head_bytes),
        Ok(Some(REQUEST_HEAD_BYTES_MAX))
    );
    assert_eq!(refused(&padded(REQUEST_HEAD_BYTES_MAX + 1)), Refusal::HeadTooLarge);
}

#[test]
fn more_header_fields_than_slots_are_refused() {
    let with = |fields: usize| {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(fields - 1))
    };
    assert_eq!(parsed(with(REQUEST_HEADERS_MAX).as_bytes(), |_| ()), Ok(Some(())));
    assert_eq!(refused(&with(REQUEST_HEADERS_MAX + 1)), Refusal::TooManyHeaders);
}

#[test]
fn a_body_is_not_taken() {
    assert_eq!(body_of(""), Ok(()));
    assert_eq!(body_of("Content-Length: 0\r\n"), Ok(()));
    assert_eq!(body_of("Content-Length: 1\r\n"), Err(Refusal::NO_BODY_TAKEN));
    let beyond = format!("Content-Length: {}\r\n", "9".repeat(40));
    assert_eq!(body_of(&beyond), Err(Refusal::NO_BODY_TAKEN));
    assert_eq!(body_of("Transfer-Encoding: chunked\r\n"), Err(Refusal::NO_BODY_TAKEN));
}

#[test]
fn a_body_of_unclear_length_is_a_bad_request() {
    for headers in [
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(body_of(headers).unwrap_err().status(), 400, "{headers}");
    }
}

#[test]
fn a_damaged_head_is_judged_alike_however_it_comes() {
    for seed in 0..2000 {
        let mut seeded = Seeded::new(seed);
        let mut head = SIMPLE.as_bytes().to_vec();
        for _ in 0..1 + seeded.below(2) {
            let at = seeded.below(head.len());
            head[at] = b"\0\r\n :\x80/Hh#?,\t\x7f1"[seeded.below(15)];
        }
        let look = |request: &Request<'_>| (request.head_bytes, request.path.to_owned());
        let whole = parsed(&head, look);
        let first = (0..=head.len()).map(|end| parsed(&head[..end], look)).find(|verdict| {
            // An early verdict must not be taken back when more arrives.
            !matches!(verdict, Ok(None))
        });
        assert_eq!(first.unwrap_or(Ok(None)), whole, "seed {seed}");
        // `head_end` never keeps a caller waiting for a head that is complete.
        if let Ok(Some((head_bytes, _))) = whole {
            assert_eq!(head_end(&head, 0), Some(head_bytes), "seed {seed}");
        }
    }
}
