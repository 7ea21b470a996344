//! Every way a request is turned down, with its status and the headers that help.

use super::response::{Head, reason_phrase};
use crate::proto::json;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: not HTTP, or an HTTP rule is broken; says which.
    BadRequest(&'static str),
    /// 403: understood, and not allowed; says why.
    Forbidden(&'static str),
    /// 404: nothing lives at this path.
    NotFound,
    /// 405: the path knows only these methods.
    MethodNotAllowed(&'static str),
    /// 408: the head, or the body, did not come in time.
    RequestTimeout,
    /// 413: a body that is too large, or where none is taken; says which.
    ContentTooLarge(&'static str),
    /// 426: the path speaks WebSocket only.
    UpgradeRequired,
    /// 426: a WebSocket version other than 13.
    WrongWebSocketVersion,
    /// 429: this address has as many connections as it may.
    TooManyConnections {
        /// When to come back, in seconds.
        retry_after_s: u32,
    },
    /// 431: the request line, a header or all of them together are too long.
    HeadTooLarge,
    /// 431: more header fields than anyone needs.
    TooManyHeaders,
    /// 503: full, or on the way out.
    Unavailable {
        /// When to come back, in seconds.
        retry_after_s: u32,
    },
    /// 503: it was taken, and what became of it is not known in time.
    Unanswered,
    /// 505: an HTTP version other than 1.0 and 1.1.
    VersionNotSupported,
}

impl Refusal {
    /// The stable labels of all of them, for metrics that must exist before they count.
    pub const NAMES: [&'static str; 14] = [
        "bad_request",
        "forbidden",
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "content_too_large",
        "upgrade_required",
        "wrong_websocket_version",
        "too_many_connections",
        "head_too_large",
        "too_many_headers",
        "unavailable",
        "unanswered",
        "version_not_supported",
    ];

    /// 413 where no body is taken.
    pub const NO_BODY_TAKEN: Self = Self::ContentTooLarge("this path takes no request body");

    /// 413 for a body that is too large as a whole.
    pub const BODY_TOO_LARGE: Self =
        Self::ContentTooLarge("the request body is larger than limits.body_bytes_max");

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Forbidden(_) => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::RequestTimeout => 408,
            Self::ContentTooLarge(_) => 413,
            Self::UpgradeRequired | Self::WrongWebSocketVersion => 426,
            Self::TooManyConnections { .. } => 429,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::Unavailable { .. } | Self::Unanswered => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// One line for the person who reads the answer.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(reason) | Self::Forbidden(reason) | Self::ContentTooLarge(reason) => {
                reason
            }
            Self::NotFound => "nothing lives at this path",
            Self::MethodNotAllowed(_) => {
                "this path does not know the method; Allow names those it knows"
            }
            Self::RequestTimeout => "the request did not arrive in time",
            Self::UpgradeRequired => "this path speaks WebSocket only",
            Self::WrongWebSocketVersion => "only WebSocket version 13 is spoken here",
            Self::TooManyConnections { .. } => "too many connections from this address",
            Self::HeadTooLarge => "the request head is too large",
            Self::TooManyHeaders => "the request has too many header fields",
            Self::Unavailable { .. } => "no room for another connection now",
            Self::Unanswered => "no answer in time; what was sent may have been published",
            Self::VersionNotSupported => "only HTTP/1.1 is spoken here",
        }
    }

    /// A stable label for metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// The place of [`Refusal::name`] in [`Refusal::NAMES`], for counters in an array.
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::BadRequest(_) => 0,
            Self::Forbidden(_) => 1,
            Self::NotFound => 2,
            Self::MethodNotAllowed(_) => 3,
            Self::RequestTimeout => 4,
            Self::ContentTooLarge(_) => 5,
            Self::UpgradeRequired => 6,
            Self::WrongWebSocketVersion => 7,
            Self::TooManyConnections { .. } => 8,
            Self::HeadTooLarge => 9,
            Self::TooManyHeaders => 10,
            Self::Unavailable { .. } => 11,
            Self::Unanswered => 12,
            Self::VersionNotSupported => 13,
        }
    }
}

/// In which manner a request is turned down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner<'a> {
    /// Whether the body is an error object of the protocol, for programs, instead of a line.
    pub object: bool,
    /// Whose pages may read it, as [`Cors::judge`](super::Cors::judge) has found.
    pub allowed: Option<&'a str>,
}

/// Appends the whole response to a request that is turned down. The connection closes after it.
pub fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal, manner: Manner<'_>) {
    // RFC 9110 15.5.22: a 426 names the protocol, and as a hop-by-hop field it is listed in
    // Connection.
    let connection = if refusal.status() == 426 { "close, Upgrade" } else { "close" };
    let head = Head::with_connection(out, refusal.status(), connection);
    let head = match refusal {
        // RFC 9110 15.5.6: a 405 names the methods that would do.
        Refusal::MethodNotAllowed(methods) => head.field("Allow", methods),
        Refusal::UpgradeRequired => head.field("Upgrade", "websocket"),
        // RFC 6455 4.4: the versions that would do.
        Refusal::WrongWebSocketVersion => {
            head.field("Upgrade", "websocket").field("Sec-WebSocket-Version", "13")
        }
        Refusal::TooManyConnections { retry_after_s } | Refusal::Unavailable { retry_after_s } => {
            head.number("Retry-After", u64::from(*retry_after_s))
        }
        _ => head,
    };
    let head = head.allow(manner.allowed);
    if manner.object {
        let mut body = b"{\"type\":\"error\",\"code\":".to_vec();
        json::write_string(&mut body, refusal.name());
        body.extend_from_slice(b",\"reason\":");
        json::write_string(&mut body, refusal.reason());
        body.extend_from_slice(b"}\n");
        head.fresh("application/json").body(&body);
    } else {
        head.fresh("text/plain; charset=utf-8").body(format!("{}\n", refusal.reason()).as_bytes());
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status();
        write!(formatter, "{status} {}: {}", reason_phrase(status), self.reason())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refusal; 14] = [
        Refusal::BadRequest("no"),
        Refusal::Forbidden("no"),
        Refusal::NotFound,
        Refusal::MethodNotAllowed("GET"),
        Refusal::RequestTimeout,
        Refusal::ContentTooLarge("no"),
        Refusal::UpgradeRequired,
        Refusal::WrongWebSocketVersion,
        Refusal::TooManyConnections { retry_after_s: 9 },
        Refusal::HeadTooLarge,
        Refusal::TooManyHeaders,
        Refusal::Unavailable { retry_after_s: 7 },
        Refusal::Unanswered,
        Refusal::VersionNotSupported,
    ];

    fn written(refusal: &Refusal) -> String {
        let mut out = Vec::new();
        write_refusal(&mut out, refusal, Manner::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_refusal_is_a_complete_response_that_closes() {
        for (index, refusal) in ALL.iter().enumerate() {
            assert_eq!(refusal.index(), index);
            let text = written(refusal);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", refusal.status())), "{head}");
            assert!(!head.contains("Unknown"), "{head}");
            assert!(head.contains("\r\nConnection: close"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            assert_eq!(body, format!("{}\n", refusal.reason()));

            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut headers);
            assert!(response.parse(text.as_bytes()).unwrap().is_complete());
            assert_eq!(response.code, Some(refusal.status()));
        }
    }

    #[test]
    fn a_program_is_told_with_an_error_object_and_a_page_may_read_it() {
        for refusal in &ALL {
            let mut out = Vec::new();
            let manner = Manner { object: true, allowed: Some("https://app.example") };
            write_refusal(&mut out, refusal, manner);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
            assert!(head.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\n"));
            assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            let (code, reason) = (refusal.name(), refusal.reason());
            let object = format!(r#"{{"type":"error","code":"{code}","reason":"{reason}"}}"#);
            assert_eq!(body, object + "\n");
        }
    }

    #[test]
    fn the_headers_that_help_are_there() {
        let unknown = written(&Refusal::MethodNotAllowed("GET, HEAD"));
        assert!(unknown.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(written(&Refusal::UpgradeRequired).contains("\r\nUpgrade: websocket\r\n"));
        assert!(
            written(&Refusal::WrongWebSocketVersion).contains("\r\nSec-WebSocket-Version: 13\r\n")
        );
        let unavailable = written(&Refusal::Unavailable { retry_after_s: 7 });
        assert!(unavailable.contains("\r\nRetry-After: 7\r\n"));
        let too_many = written(&Refusal::TooManyConnections { retry_after_s: 9 });
        assert!(too_many.contains("\r\nRetry-After: 9\r\n"));
    }
}
